"""Ask a trained run, and print each event of the reply as it comes.

`make demo` trains one that fits:

    python examples/way_of_a_request.py runs/digits "Draw a seven."
"""

import argparse
from pathlib import Path

from mllm_npu.build import build_part
from mllm_npu.inference.events import Finished, ImageMade, TextDelta
from mllm_npu.inference.picture_files import open_pictures
from mllm_npu.model_folder import find_model_folder, load_engine
from mllm_npu.processing.conversation import ask


def main() -> None:
    """Load, ask, listen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run or of a model")
    parser.add_argument("question")
    parser.add_argument("--image", type=Path, action="append", default=[])
    parser.add_argument("--out", type=Path, default=Path("picture.png"))
    asked = parser.parse_args()

    # --8<-- [start:way]
    engine, config = load_engine(find_model_folder(asked.run))
    options = build_part(config.generation)
    talk = ask(asked.question, open_pictures(asked.image))
    for event in engine.stream(talk, options):
        match event:
            case TextDelta(text=text):
                print("text:", repr(text))
            case ImageMade(picture=picture):
                picture.save(asked.out)
                print("picture:", asked.out)
            case Finished(reason=reason, num_new_tokens=number):
                print(f"finished: {reason} after {number} tokens")
    # --8<-- [end:way]


if __name__ == "__main__":
    main()
