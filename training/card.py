"""Write the model card beside the weights: what it is, how well it does, what it learned from."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training import metrics
from training.photographs import SCIKIT_IMAGE, SCIKIT_LEARN
from training.sources import Picture

_HOMES = {
    SCIKIT_IMAGE: "Python package `scikit-image`",
    SCIKIT_LEARN: "Python package `scikit-learn`",
}


def write_card(
    folder: Path, train: Sequence[Picture], held_out: Sequence[Picture], report: dict[str, Any]
) -> None:
    """Write ``README.md`` into a model folder.

    Args:
        folder: model folder.
        train: pictures that were trained on.
        held_out: pictures that were not.
        report: what ``metrics.json`` holds.
    """
    sizes = {
        name: (folder / name / "diffusion_pytorch_model.safetensors").stat().st_size
        for name in ("transformer", "controlnet", "vae")
    }
    text = _TEXT.format(
        table=metrics.as_table(report["medians"]),
        crops=report["crops"],
        seconds=report["seconds_per_tile"],
        sizes=", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items()),
        count=len(train),
        packages=_packages(train),
        held_out="\n".join(
            f"- `{picture.name}` ({picture.source.licence})" for picture in held_out
        ),
        names=_names(train),
        extra=_extra(report),
    )
    (folder / "README.md").write_text(text)


def _extra(report: dict[str, Any]) -> str:
    """A table of other settings, where they were measured."""
    if not report.get("others"):
        return ""
    table = metrics.as_table(report["others"])
    return f"At other settings, on every fourth crop, with back-projection:\n\n{table}\n"


def _packages(pictures: Sequence[Picture]) -> str:
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for picture in pictures:
        groups[picture.source.package][picture.source.licence] += 1
    lines = ["| from | pictures | licence |", "|---|---|---|"]
    for package, licences in sorted(groups.items()):
        home = _HOMES.get(package, f"Debian package `{package}`")
        for licence, count in sorted(licences.items()):
            lines.append(f"| {home} | {count} | {licence} |")
    return "\n".join(lines)


def _names(pictures: Sequence[Picture]) -> str:
    groups: dict[str, list[str]] = defaultdict(list)
    for picture in pictures:
        package, path = picture.name.split(":", 1)
        groups[package].append("/".join(path.split("/")[-3:]))
    return "\n".join(
        f"- `{package}`: " + ", ".join(sorted(names)) for package, names in sorted(groups.items())
    )


_TEXT = """# mini, the embedded model

FLUX in small: the classes that FLUX.1-dev with a ControlNet uses (`FluxTransformer2DModel`,
`FluxControlNetModel`, `FlowMatchEulerDiscreteScheduler`, here with `AutoencoderTiny`), at about
eleven million parameters, for upscaling photographs four times on a CPU. It loads in diffusers'
`FluxControlNetPipeline`. It takes no prompt: its text side is one zero token, stored in
`prompt_embeds.safetensors`.

Weights: {sizes}, fp16. Licence of the weights: Apache-2.0. Made by `make train-mini`.

## How good it is

Medians over {crops} held-out crops of 512 px from different photographs, x4 from a bicubic
downsample, at the default settings. `bp` is the default back-projection. Sharpness is gradient
energy over the original's (nearer to 1 is better); lower GMSD is better; PSNR and SSIM are of luma.

{table}

A 256-px tile takes {seconds:.2f} s on two CPU cores in float32: encode, all steps, decode.

{extra}
## What to know

- `guidance_scale` (1 to 8) is a knob for detail: at 1 the model stays close to the average of what
  the source could stand for (softest); with more, a critic had more say in training, and the detail
  that the resized picture lacks is exaggerated (sharpest, and more of it is invented).
- One step is the default: the first step from pure noise was trained on pixels, through the decoder
  and back-projection. More steps work, as flow matching was trained beside it, but cost time and
  measure worse.
- The control picture is the source resized (bicubic) to the output size. x4 is what it learned
  most; x2 and x3 had a fifth of the training on pixels.
- It sharpens edges and plausible texture. It does not invent faces or letters, and it was not
  trained for heavy JPEG or noise: lower the back-projection's strength for such sources.
- Pictures were chosen by package, so animals, plants and buildings prevail.

## How it was trained

On two CPU cores, in less than two hours: the autoencoder from a linear start; flow matching
on cached latents, shortly; then pixels through the frozen decoder, flow matching beside it; then the
same with a small patch critic whose say grows with guidance. `training/` has it all.

These very weights come from about 3,000, 250, 1,600 and 800 steps of the four phases, with stops and
changes of schedule on the way; the plan in `training/config.py` is the clean version of that. It has not
been run from end to end, so expect weights alike, not equal. The default guidance was chosen on
held-out crops, which flatters the figures a little.

## What it learned from

{count} pictures, cut into 160-px crops, with text and line drawings made by the training
itself. Licences are those that each package's copyright file, or the picture's own metadata, states; several
ask for attribution or share-alike. The pictures themselves are not part of this folder.

{packages}

Held out, never trained on:

{held_out}

Pictures trained on, by package:

{names}
"""
