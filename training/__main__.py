"""The training's command line: ``python -m training [all|evaluate|...]``.

``all`` goes from photographs to a finished model folder and can be stopped and started again at any
time; what a phase has done is kept in the work folder, the latest model under ``latest/`` there.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny

from training import card, evaluate, heldout, metrics
from training.autoencoder import train_autoencoder
from training.config import Plan
from training.crops import build_crops
from training.export import export
from training.flow import train_flow
from training.networks import FluxPair
from training.pairs import build_pairs
from training.sources import Picture, fetch_packages, pictures
from training.tuning import PIXELS, SHARPEN, Data, tune

_ROOT = Path(__file__).resolve().parent.parent
_MODEL = _ROOT / "serve_app" / "models" / "mini"
_WORK = Path(os.environ.get("TESSERA_TRAIN_DIR", "~/.cache/tessera/train")).expanduser()
_OTHERS_EVERY = 4  # other settings than the defaults are measured on fewer crops
_FLOW_CROP_PX = 160
_FLOW_PX = 128


def main() -> None:
    """Run the phase that the command line names."""
    arguments = _parse()
    torch.set_num_threads(arguments.threads)
    found = pictures(fetch_packages(arguments.work, arguments.debs))
    train, held_out = heldout.split(found)
    print(f"{len(train)} pictures to train on, {len(held_out)} held out", flush=True)
    if arguments.phase == "all":
        _train(arguments, train)
    _judge(arguments, train, held_out)


def _train(arguments: argparse.Namespace, train: list[Picture]) -> None:
    work: Path = arguments.work
    plan = Plan()
    crops = build_crops(train, plan.crops, plan.seed, work / "crops.npy", _FLOW_CROP_PX)
    autoencoder = _autoencoder(crops, plan, work)

    def keep(pair: FluxPair, step: int) -> None:
        export(work / "latest", autoencoder, pair)
        print(f"wrote {work / 'latest'} at step {step}", flush=True)

    pairs = build_pairs(autoencoder, crops, _FLOW_PX, plan.rounds, plan.seed, work / "pairs.pt")
    pair = train_flow(pairs, plan.flow_steps, plan.seed, work, keep)
    data = Data(crops, pairs, autoencoder)
    for phase, steps in ((PIXELS, plan.pixel_steps), (SHARPEN, plan.sharpen_steps)):
        pair = tune(pair, data, phase, steps, plan.seed, work, keep)
    export(arguments.out, autoencoder, pair)


def _autoencoder(crops: np.ndarray, plan: Plan, work: Path) -> AutoencoderTiny:
    folder = work / "vae"
    if not folder.exists():
        train_autoencoder(crops, plan.autoencoder_steps, plan.seed, work).save_pretrained(folder)
    model: AutoencoderTiny = AutoencoderTiny.from_pretrained(folder)
    return model.eval()


def _judge(arguments: argparse.Namespace, train: list[Picture], held_out: list[Picture]) -> None:
    originals = [heldout.cut(crop, held_out) for crop in heldout.CROPS]
    table, shown = evaluate.evaluate(arguments.out, originals)
    print(metrics.as_table(table))
    kept = evaluate.verdict(table)
    for promise, holds in kept.items():
        print(f"{'yes' if holds else 'NO '} {promise}")
    if arguments.sheets:
        evaluate.write_sheets(shown, arguments.sheets)
    seconds = evaluate.seconds_per_tile(arguments.out)
    print(f"{seconds:.2f} s for a 256-px tile on {arguments.threads} threads, float32")
    others = evaluate.at_other_settings(arguments.out, originals[::_OTHERS_EVERY])
    print(metrics.as_table(others))
    report = {
        "crops": len(originals),
        "scale": 4,
        "medians": table,
        "others": others,
        "seconds_per_tile": seconds,
    }
    (arguments.out / "metrics.json").write_text(json.dumps(report, indent=2) + "\n")
    card.write_card(arguments.out, train, held_out, report)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("phase", nargs="?", choices=("all", "evaluate"), default="all")
    parser.add_argument("--work", type=Path, default=_WORK, help="data and checkpoints")
    parser.add_argument("--debs", type=Path, help="folder with .deb files fetched before")
    parser.add_argument("--out", type=Path, default=_MODEL, help="model folder to write or judge")
    parser.add_argument("--sheets", type=Path, help="folder for before/after sheets")
    parser.add_argument("--threads", type=int, default=Plan().threads)
    return parser.parse_args()


if __name__ == "__main__":
    main()
