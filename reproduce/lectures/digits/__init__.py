"""Digits: small networks on MNIST and on points of the plane."""
