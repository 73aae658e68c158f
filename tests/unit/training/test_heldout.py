from training import heldout
from training.photographs import PACKAGES, SCIKIT_IMAGE, SOURCES, source_of
from training.sources import Picture


def test_no_held_out_photograph_is_trained_on() -> None:
    names = [f"package:{crop.path_ending}" for crop in heldout.CROPS]
    names += [*heldout.UNCROPPED, "package:other.jpg", "package:mate/nature/Garden.jpg"]
    train, held_out = heldout.split([Picture(name, SOURCES[0], b"") for name in names])
    assert {picture.name for picture in train} == {
        "package:other.jpg",
        "package:mate/nature/Garden.jpg",
    }
    assert not {picture.name for picture in train} & {picture.name for picture in held_out}
    assert len(train) + len(held_out) == len(names)


def test_held_out_crops_come_from_at_least_twelve_different_photographs() -> None:
    endings = {crop.path_ending for crop in heldout.CROPS}
    assert len(endings) == len(heldout.CROPS) >= 12
    assert not any(a != b and a.endswith(b) for a in endings for b in endings)


def test_only_the_named_packages_are_sources() -> None:
    assert {source.package for source in SOURCES} <= {*PACKAGES, SCIKIT_IMAGE, "scikit-learn"}


def test_a_picture_outside_the_sources_is_not_used() -> None:
    assert source_of("mate-backgrounds", "usr/share/backgrounds/mate/desktop/Stripes.png") is None
    found = source_of("mate-backgrounds", "usr/share/backgrounds/mate/nature/Dune.jpg")
    assert found is not None
    assert found.licence == "GPL-2+"
