import pytest

from pipelines import errors


def test_every_error_carries_message_and_remedy_into_json():
    made = [
        errors.BadInput("Steps is 0.", "Use at least 1."),
        errors.UnknownName("stage", "unte", ["unet", "vae"]),
        errors.BrokenWeights("a.safetensors", "it is truncated"),
        errors.MissingAsset("b", "Build it."),
        errors.DiskFull("c"),
        errors.StateBusy("d", "process 7"),
        errors.NotAvailable("faces", "no detector", "Install one."),
    ]
    for error in made:
        table = error.as_dict()
        assert table["type"] == type(error).__name__
        assert table["message"] == str(error)
        assert table["remedy"].endswith(".")


def test_unknown_name_hints_at_the_nearest():
    error = errors.UnknownName("stage", "UNTE", ["vae", "unet", "clip"])
    assert error.suggestion == "unet"
    assert 'Did you mean "unet"' in error.remedy
    assert errors.UnknownName("stage", "zzzzzz", ["vae"]).suggestion is None


def test_cancelled_is_no_error():
    assert not issubclass(errors.Cancelled, errors.LikenessError)
    assert issubclass(errors.Cancelled, Exception)


@pytest.mark.parametrize("path", ["weights/unet.safetensors"])
def test_broken_weights_name_the_file(path):
    assert path in errors.BrokenWeights(path, "it is truncated").message
