"""Which pictures the embedded model learns from, which are held out, and under what licences.

A photograph is named ``package:path`` (for a bundle, ``package:bundle.rcc:path``). The split is by
whole photographs: one that is held out never gives a single pixel to training. This file knows
names and licences only; :mod:`training.sources` knows how to open them.
"""

from dataclasses import dataclass
from fnmatch import fnmatch

SCIKIT_IMAGE = "scikit-image"
SCIKIT_LEARN = "scikit-learn"
PACKAGES = (
    "mate-backgrounds",
    "plasma-workspace-wallpapers",
    "lomiri-wallpapers-20.04",
    "ukui-wallpapers",
    "gnome-backgrounds",
    "tuxpaint-stamps-default",
    "gcompris-qt-data",
)


@dataclass(frozen=True)
class Source:
    """Pictures of one package that share a licence and a role.

    Attributes:
        package: Debian package, or the Python distribution that ships the pictures.
        pattern: shell pattern over the path inside the package (and bundle).
        licence: as its copyright file or the picture's own metadata states it.
        min_side_px: smaller pictures are passed over: they hold too little detail.
        limit: take at most this many pictures (None: all), spread evenly over the sorted names.
        photographic: False for drawings, renderings and text, which get a smaller share of crops.
    """

    package: str
    pattern: str
    licence: str
    min_side_px: int = 300
    limit: int | None = None
    photographic: bool = True

    def matches(self, package: str, path: str) -> bool:
        """Say whether a picture belongs to this source."""
        return package == self.package and fnmatch(path, self.pattern)


_PLASMA = "usr/share/wallpapers/{}/contents/images/*"
_PLASMA_LICENCE = (
    "GPL-2+ (package); LGPL-3 (metadata), but Patak and SafeLanding CC-BY-SA-4.0 (metadata)"
)
_GCOMPRIS = "*/activities/{}"
_GCOMPRIS_LICENCE = (
    "GPL-3+ (package) where its copyright file does not name the picture; else by picture: "
    "CC-BY-SA, CC-BY, CC0, GFDL, GPL or public domain"
)

SOURCES: tuple[Source, ...] = (
    Source("mate-backgrounds", "*/mate/nature/*.jpg", "GPL-2+"),
    Source("mate-backgrounds", "*/Elephants_3840x2160.jpg", "GPL-2+", photographic=False),
    *(
        Source("plasma-workspace-wallpapers", _PLASMA.format(name), _PLASMA_LICENCE)
        for name in (
            "BytheWater",
            "ColdRipple",
            "ColorfulCups",
            "EveningGlow",
            "FallenLeaf",
            "Grey",
            "Kite",
            "OneStandsOut",
            "Path",
            "summer_1am",
        )
    ),
    *(
        Source(
            "plasma-workspace-wallpapers",
            _PLASMA.format(name),
            _PLASMA_LICENCE,
            photographic=False,
        )
        for name in ("Autumn", "Canopee", "SafeLanding", "FlyingKonqui", "Patak", "Cluster")
    ),
    Source("lomiri-wallpapers-20.04", "*/Kleiber_by_Lukas_Baubkus.jpg", "CC-BY-SA-3.0"),
    Source("lomiri-wallpapers-20.04", "*/Infinite-Sea_by_Aury88.jpg", "CC-BY-SA-3.0"),
    Source("ukui-wallpapers", "*/the-mouse.jpg", "CC-BY-SA-3.0", photographic=False),
    Source("ukui-wallpapers", "*/focal-ubuntukylin.png", "CC-BY-SA-3.0", photographic=False),
    Source(
        "gnome-backgrounds",
        "*/pixels-l.webp",
        "GPL-2+ (package; it states CC-BY-SA-3.0 for other pictures)",
        photographic=False,
    ),
    Source(
        "gnome-backgrounds",
        "*/licorice-l.webp",
        "GPL-2+ (package; it states CC-BY-SA-3.0 for other pictures)",
        photographic=False,
    ),
    Source(
        "gnome-backgrounds",
        "*/truchet-l.webp",
        "GPL-2+ (package; it states CC-BY-SA-3.0 for other pictures)",
        photographic=False,
    ),
    Source("tuxpaint-stamps-default", "*/animals/*[!n].png", "GPL-2", limit=40),
    Source("tuxpaint-stamps-default", "*/plants/*.png", "GPL-2", limit=20),
    Source("tuxpaint-stamps-default", "*/food/*.png", "GPL-2", limit=20),
    Source("tuxpaint-stamps-default", "*/vehicles/*.png", "GPL-2", limit=15),
    Source("gcompris-qt-data", _GCOMPRIS.format("erase/*.webp"), _GCOMPRIS_LICENCE),
    Source("gcompris-qt-data", _GCOMPRIS.format("explore_*.webp"), _GCOMPRIS_LICENCE),
    Source("gcompris-qt-data", _GCOMPRIS.format("clickgame/*.webp"), _GCOMPRIS_LICENCE, 900),
    Source("gcompris-qt-data", _GCOMPRIS.format("details/*.webp"), _GCOMPRIS_LICENCE),
    Source(
        "gcompris-qt-data",
        _GCOMPRIS.format("categorization/*/images/*.webp"),
        _GCOMPRIS_LICENCE,
        230,
    ),
    Source(
        "gcompris-qt-data",
        _GCOMPRIS.format("lang/*.webp"),
        _GCOMPRIS_LICENCE,
        limit=24,
        photographic=False,
    ),
    Source(SCIKIT_IMAGE, "brick.png", "CC0"),
    Source(SCIKIT_IMAGE, "grass.png", "CC0"),
    Source(SCIKIT_IMAGE, "gravel.png", "CC0"),
    Source(SCIKIT_IMAGE, "camera.png", "CC0"),
    Source(SCIKIT_IMAGE, "rocket.jpg", "public domain (SpaceX)"),
    Source(SCIKIT_IMAGE, "hubble_deep_field.jpg", "public domain (NASA)"),
    Source(
        SCIKIT_IMAGE,
        "page.png",
        "as scikit-image's documentation of its data says",
        150,
        photographic=False,
    ),
    Source(SCIKIT_IMAGE, "text.png", "public domain", 150, photographic=False),
    Source(SCIKIT_IMAGE, "astronaut.png", "public domain (NASA)"),
    Source(SCIKIT_IMAGE, "chelsea.png", "CC0"),
    Source(SCIKIT_IMAGE, "coffee.png", "CC0"),
    Source(SCIKIT_LEARN, "china.jpg", "CC-BY-2.0"),
    Source(SCIKIT_LEARN, "flower.jpg", "CC-BY-2.0"),
)


def source_of(package: str, path: str) -> Source | None:
    """Find the first source that a picture belongs to, or None where it is not used."""
    return next((source for source in SOURCES if source.matches(package, path)), None)
