"""Results are kept on disk by their key; damaged files are replaced, unwritable folders ignored."""

import json

from batchland.models.gpu.disk_cache import cached


def settings(value):
    return {str(name): str(setting) for name, setting in value.items()}


def test_a_result_is_kept_for_the_same_key(tmp_path):
    made = []

    def make(**result):
        def choice():
            made.append(result)
            return result

        return choice

    folder = tmp_path / "cache" / "tuning"
    key = {"model": "abc", "gpu": "NVIDIA H200", "batch_size": 32}
    assert cached(folder, key, make(layout="nhwc"), settings) == {"layout": "nhwc"}
    assert cached(folder, key, make(layout="other"), settings) == {"layout": "nhwc"}
    assert cached(folder, key | {"batch_size": 64}, make(layout="nchw"), settings) == {"layout": "nchw"}
    assert made == [{"layout": "nhwc"}, {"layout": "nchw"}]
    for content in ('{"key": "another"}', "{", json.dumps({"key": key}), json.dumps({"key": key, "value": [1]})):
        for path in folder.iterdir():
            path.write_text(content)
        assert cached(folder, key, make(layout=content), settings) == {"layout": content}
        assert cached(folder, key, make(layout="other"), settings) == {"layout": content}


def test_an_unwritable_cache_is_not_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert cached(tmp_path / "file" / "tuning", {}, lambda: {"layout": "nhwc"}, settings) == {"layout": "nhwc"}
