"""Device names, and why no GPU can be used; gpu/stub/ has the other reasons."""

import pytest

from batchland.errors import DeviceError
from batchland.models.devices import DeviceRequest, device_name, gpu_problem, parse_device


def test_device_names_are_parsed():
    assert {
        text: parse_device(text) for text in ("auto", "cpu", "cuda", "cuda:2", "cuda:0,1", "cuda:1,1", "cuda:all")
    } == {
        "auto": DeviceRequest("auto", (0,)),
        "cpu": DeviceRequest("cpu", ()),
        "cuda": DeviceRequest("cuda", (0,)),
        "cuda:2": DeviceRequest("cuda", (2,)),
        "cuda:0,1": DeviceRequest("cuda", (0, 1)),
        "cuda:1,1": DeviceRequest("cuda", (1,)),
        "cuda:all": DeviceRequest("cuda", None),
    }
    assert parse_device("tensorrt:1") == DeviceRequest("tensorrt", (1,))
    assert [device_name("cpu", ()), device_name("cuda", (0,)), device_name("tensorrt", (0, 1))] == [
        "cpu", "cuda:0", "tensorrt:0,1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["gpu", "cuda:", "cuda:x", "cpu:1", "cuda:-1", "cuda:0,", "cuda:0,all", "auto:0", "CUDA", "cuda:0 ", ""]
)
def test_an_unknown_device_is_an_error(text):
    with pytest.raises(DeviceError) as caught:
        parse_device(text)
    assert str(caught.value) == (
        f"unknown device {text!r}; use auto, cpu, cuda, cuda:N, cuda:0,1, cuda:all or tensorrt"
    )


@pytest.mark.skipif(gpu_problem() is None, reason="this machine has a GPU")
def test_a_missing_gpu_is_explained_with_a_remedy(capfd):
    for kind in ("cuda", "tensorrt"):
        problem = gpu_problem(kind)
        assert "; " in problem
        assert "\n" not in problem
    assert capfd.readouterr() == ("", "")
