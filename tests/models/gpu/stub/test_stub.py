"""The stand-ins are honest: a wrong order of calls gives wrong data, as on a GPU."""

from models.gpu.stub.programs import calls, facts


def test_a_wrong_order_of_calls_gives_wrong_data_or_an_error(stub):
    assert stub.run(calls, variables={"STUB_DELAY_US": 50_000}).result == {
        "late copy": {
            "pinned": [7] * 4,
            "pageable": [0] * 4,
        },  # an asynchronous one of memory that changes
        "early read": [1, 2],  # by a copy that does not wait for the stream that writes
        "capture": {"cudaMalloc": 900, "cudaStreamEndCapture": 901},  # an allocation while a graph is captured
    }


def test_the_driver_shows_the_gpus_that_cuda_visible_devices_names(stub):
    def shown(visible):
        return stub.run(facts, variables={"STUB_DEVICES": 3, "CUDA_VISIBLE_DEVICES": visible}).result

    hidden = {
        "problem": "the driver shows no GPU; check nvidia-smi, CUDA_VISIBLE_DEVICES and the container's settings",
        "names": [],
        "uuids": [],
    }
    uuids = [f"GPU-0{n}0{n}0{n}0{n}-0{n}0{n}-0{n}0{n}-0{n}0{n}-0{n}0{n}0{n}0{n}0{n}0{n}" for n in range(3)]
    assert shown("2,0") == {"problem": None, "names": ["Stub GPU 2", "Stub GPU 0"], "uuids": [uuids[2], uuids[0]]}
    assert shown("1,7,0") == {"problem": None, "names": ["Stub GPU 1"], "uuids": [uuids[1]]}
    assert shown("-1") == hidden
