"""Access control of the server, and a thousand hostile requests."""

import json
import random
import socket

import pytest

from tests.explorer.conftest import TOKEN, Client

PATH = f"/{TOKEN}/api/network"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (PATH, {}, 200),
        (PATH, {"Origin": "http://127.0.0.1:{port}"}, 200),
        (PATH, {"Host": "localhost:{port}", "Origin": "http://localhost:{port}"}, 200),
        (PATH, {"Host": "evil.example"}, 403),
        (PATH, {"Host": "127.0.0.1"}, 403),
        (PATH, {"Host": "127.0.0.1:1"}, 403),
        (PATH, {"Host": "127.0.0.1.evil.example:{port}"}, 403),
        (PATH, {"Origin": "http://evil.example"}, 403),
        (PATH, {"Origin": "null"}, 403),
        (PATH, {"Origin": "https://127.0.0.1:{port}"}, 403),
        ("/api/network", {}, 403),
        ("/", {}, 403),
        ("/wrong-token-of-the-tests/api/network", {}, 403),
        (f"/{TOKEN}", {}, 403),
        (f"/{TOKEN}/", {}, 200),
        (f"/{TOKEN}/static/main.js", {}, 200),
        (f"/{TOKEN}/static/../server.py", {}, 404),
        (f"/{TOKEN}/static/%2e%2e/server.py", {}, 404),
        (f"/{TOKEN}/static/..%2fserver.py", {}, 404),
        (f"/{TOKEN}//etc/passwd", {}, 404),
    ],
)  # fmt: skip
def test_requests_need_the_right_host_origin_and_token(client, server, path, headers, status):
    headers = {name: value.format(port=server.port) for name, value in headers.items()}
    assert client.request("GET", path, headers=headers)[0] == status


def test_server_listens_on_localhost_only(server):
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_page_policy_forbids_external_resources(client, server):
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", f"/{TOKEN}/")
    answer = connection.getresponse()
    policy = answer.getheader("content-security-policy")
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http:" not in answer.read().decode()
    connection.close()


def hostile_request(rng, port):
    """Return the bytes of a random invalid request."""
    junk = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 200)))
    kinds = [
        "network", "samples", "image", "maps", "unit", "neighbors", "cover", "explain", "share",
        "picture", "upload", "frame", "nothing", "../api", "%00", "sweep",
    ]  # fmt: skip
    names = [
        "image",
        "layer",
        "unit",
        "at",
        "box",
        "pins",
        "target",
        "method",
        "size",
        "start",
        "count",
        "tab",
        "lane",
        "view",
        "switches",
    ]
    values = [
        "coffee", "conv5", "-1", "99999999999999999999", "1e400", "nan", "0,0", "-1,-1", "6,4,2,0", "a" * 3000, "%00", "%F0%9F%92%A5",
        "../../etc/passwd", "'; DROP TABLE", "<script>", "conv5/17@6,4", "conv5/17@9999,9999", "saliency", "unit", "0", "1", "",
        "%FF%FE", "fc8", "%D9%A3",
    ]  # fmt: skip
    query = "&".join(f"{rng.choice(names)}={rng.choice(values)}" for _ in range(rng.randrange(6)))
    method = rng.choice(["GET", "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW"])
    token = rng.choice([TOKEN, TOKEN, TOKEN, "wrong", ""])
    line = f"{method} /{token}/api/{rng.choice(kinds)}?{query} HTTP/1.1\r\n"
    host = rng.choice([f"127.0.0.1:{port}", f"127.0.0.1:{port}", "evil.example", ""])
    head = f"{line}Host: {host}\r\nConnection: close\r\n"
    return rng.choice([
        junk,
        (head + "\r\n").encode(),
        (head + f"Content-Length: {len(junk)}\r\n\r\n").encode() + junk,
        (head + "Content-Length: -5\r\n\r\n").encode() + junk,
        (head + "Content-Length: 99999999999999999\r\n\r\n").encode() + junk,
        (head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n").encode() + junk,
        (head + "Transfer-Encoding: chunked\r\n\r\n5\r\n").encode() + junk,
        (head + "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n").encode(),
        (head + f"X: {'y' * 100_000}\r\n\r\n").encode(),
        (head + "Origin: http://evil.example\r\n\r\n").encode(),
        head.encode(),  # incomplete
    ])  # fmt: skip


def test_server_survives_hostile_requests(server, network, caplog):
    rng = random.Random(0)
    client = Client(server)
    before = client.get("unit", image="coffee", layer="conv5", unit=17, at="6,4")[0]
    statuses = {}
    for _ in range(1000):
        status = exchange(server.port, hostile_request(rng, server.port))
        statuses[status] = statuses.get(status, 0) + 1
    assert statuses.get(500, 0) == 0, statuses
    assert {200, 400, 403, 404, 405} <= set(statuses), statuses
    after = client.get("unit", image="coffee", layer="conv5", unit=17, at="6,4")[0]
    assert after == before
    assert not [r for r in caplog.records if "request failed" in r.message]


def exchange(port, content):
    """Send bytes; return the status of the response, or None without a response."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while len(answer) < 12:
                part = connection.recv(4096)
                if not part:
                    return None
                answer += part
        except OSError:  # the server closed the connection
            return None
    status = int(answer.split()[1])
    if status == 500:
        raise AssertionError(content[:300])
    return status


def test_errors_are_json(client):
    status, body = client.request("GET", "/wrong/")
    assert status == 403
    assert json.loads(body)["error"].startswith("open the address that `zfnet explore` printed")
