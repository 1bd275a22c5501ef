"""Methods, data and files that break a benchmark."""

import pytest
import torch

import zfnet
from tests.benchmarking.networks import disc_mask, gradient_x_input, image_batch, small_net
from zfnet.benchmarking import METRICS
from zfnet.benchmarking.cost import peak_memory


@pytest.fixture
def model():
    return small_net()


@pytest.fixture
def data(model):
    x = image_batch(6)
    return [
        (*pair, mask)
        for *pair, mask in zip(x, model(x).argmax(1).tolist(), disc_mask(6), strict=True)
    ]


def test_methods_cannot_change_images_or_classes(model, data):
    def hostile(model, x, target):
        x.mul_(0)
        target.zero_()
        return x

    methods = {"hostile": hostile, "mine": gradient_x_input}
    table = zfnet.benchmark(model, methods, data, ["pointing", "deletion"])
    alone = zfnet.benchmark(model, {"mine": gradient_x_input}, data, ["pointing", "deletion"])
    for metric in table.metrics:
        assert table.row("mine", metric).mean == alone.row("mine", metric).mean


def test_mode_and_trainable_weights_are_restored(model, data):
    def hostile(model, x, target):
        model.train().requires_grad_(True)
        torch.set_grad_enabled(False)
        return x

    zfnet.benchmark(model, {"hostile": hostile}, data, ["deletion"])
    assert not any(module.training for module in model.modules())
    assert not any(p.requires_grad for p in model.parameters())
    assert torch.is_grad_enabled()


def test_hooks_and_changed_weights_are_reported(model, data):
    def leaves_hook(model, x, target):
        model[0].register_forward_hook(lambda module, inputs, output: output * 0)
        return x

    def changes_weights(model, x, target):
        with torch.no_grad():
            model[0].weight.mul_(2)
        return x

    with pytest.raises(ValueError, match="bad leaves hooks on 0; remove them"):
        zfnet.benchmark(model, {"bad": leaves_hook}, data, ["deletion"])
    assert not model[0]._forward_hooks
    with pytest.raises(ValueError, match="bad changes the network's weights"):
        zfnet.benchmark(model, {"bad": changes_weights}, data, ["deletion"])


def test_state_is_restored_after_an_interrupt(model, data):
    def interrupted(model, x, target):
        model.train()
        model[0].register_forward_hook(lambda module, inputs, output: None)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        zfnet.benchmark(model, {"m": interrupted}, data, ["deletion"])
    assert not model.training
    assert not model[0]._forward_hooks


def test_batch_changes_no_score(model, data):
    methods = ["saliency", "smoothgrad", "occlusion", "grad_cam"]
    tables = [zfnet.benchmark(model, methods, data, list(METRICS), batch=b) for b in (1, 4, 8)]
    for key, values in tables[0].values.items():
        for table in tables[1:]:
            torch.testing.assert_close(
                torch.tensor(values), torch.tensor(table.values[key]),
                rtol=1e-4, atol=1e-4, equal_nan=True,
            )  # fmt: skip


def test_batch_bounds_the_memory():
    model = small_net(channels=3)
    x = image_batch(16, channels=3)
    data = [(image, 0, mask) for image, mask in zip(x, disc_mask(16), strict=True)]
    metrics = ["insertion", "deletion", "cascading"]

    def peak(images, batch):
        def run():
            zfnet.benchmark(model, None, data[:images], metrics, batch=batch, controls=False)

        run()
        return peak_memory(run, torch.device("cpu"))

    small = peak(4, 2)
    assert peak(16, 2) < 1.3 * small  # more images need no more memory
    assert peak(16, 16) > 2 * small  # larger batches do, so the measurement sees them


def test_resume_with_other_masks_functions_and_options(model, data, tmp_path):
    def run(resume, method=gradient_x_input, items=data, deletion=METRICS["deletion"]):
        table = zfnet.benchmark(model, {"m": method}, items, ["energy", deletion], resume=resume)
        return [table.row("m", metric).mean for metric in table.metrics]

    path = tmp_path / "progress.jsonl"
    run(path)
    inverted = [(x, label, ~mask) for x, label, mask in data]
    short = METRICS["deletion"].with_options(steps=3)
    for change in ({"items": inverted}, {"method": lambda m, x, t: x}, {"deletion": short}):
        assert run(path, **change) == run(None, **change) != run(None)


def test_resume_measures_memory_that_was_not_measured(model, data, tmp_path):
    path = tmp_path / "progress.jsonl"
    zfnet.benchmark(model, ["saliency"], data, ["deletion"], resume=path)
    table = zfnet.benchmark(model, ["saliency"], data, ["deletion", "memory"], resume=path)
    assert table.row("saliency", "memory").mean > 0


def test_resume_files_that_cannot_be_used(model, data, tmp_path):
    (tmp_path / "file").write_bytes(b"\xff\xfe\n")
    for path in (tmp_path, tmp_path / "file" / "progress.jsonl"):
        with pytest.raises(ValueError, match="cannot be written"):
            zfnet.benchmark(model, ["saliency"], data, ["deletion"], resume=path)
    binary = zfnet.benchmark(model, ["saliency"], data, ["deletion"], resume=tmp_path / "file")
    assert binary.row("saliency", "deletion").n == 6


def test_one_class_and_one_image():
    model = small_net(classes=1)
    data = [(image_batch(1)[0], 0, disc_mask(1)[0])]
    table = zfnet.benchmark(model, {"m": gradient_x_input}, data, ["pointing", "deletion"])
    row = table.row("m", "deletion")
    assert row.n == 1
    assert 0 < row.mean < 1
    assert torch.isnan(torch.tensor(row.low))


def test_drawn_data_of_other_classes_explains_the_predicted_class():
    model = zfnet.zfnet(12, channels=(4,) * 5, fc_units=8, size=64).eval()
    table = zfnet.benchmark(model, ["saliency"], metrics=["deletion"], limit=2, controls=False)
    assert table.info["target"] == "predicted"
    model = zfnet.zfnet(10, channels=(4,) * 5, fc_units=8, size=64).eval()
    model.wnids = zfnet.load_scenes(10, size=64, side=73).wnids
    table = zfnet.benchmark(model, ["saliency"], metrics=["deletion"], limit=2, controls=False)
    assert table.info["target"] == "label"


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "list: no images"),
        ([(torch.zeros(1, 12, 12), 0), (torch.zeros(1, 9, 9), 0)], "all images must have one shape"),
        ([(torch.zeros(1, 12, 12), 0), (torch.zeros(1, 12, 12), 0, disc_mask(1)[0])], "have a mask"),
        ([(torch.zeros(1, 12, 12), "cat")], "labels must be class numbers, got 'cat'"),
        ([(torch.full((1, 12, 12), torch.nan), 0)], "image 0 has values that are not finite"),
    ],
)  # fmt: skip
def test_wrong_data(model, items, message):
    with pytest.raises(ValueError, match=message):
        zfnet.benchmark(model, ["saliency"], items, ["deletion"])


def test_wrong_networks_and_methods(model, data):
    with pytest.raises(ValueError, match=r"model must be a torch\.nn\.Module, got function"):
        zfnet.benchmark(lambda x: x, ["saliency"], data, ["deletion"])
    with pytest.raises(ValueError, match="no method applies to the network: cam: "):
        zfnet.benchmark(model, ["cam"], data, ["deletion"], controls=False)
    with pytest.raises(ValueError, match="seed must be 0 or more"):
        zfnet.benchmark(model, ["saliency"], data, ["deletion"], seed=-1)
