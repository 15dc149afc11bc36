"""Serve a trained run on this machine and call it with OpenAI's client.

make demo
python examples/serve_and_call.py runs/digits --picture demo/seven.png
"""

import argparse
import base64
import json
import subprocess
import sys
from pathlib import Path

from openai import OpenAI


def main() -> None:
    """Start the service, ask a question, let it draw, stop the service."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run or of a model")
    parser.add_argument("--picture", type=Path, default=Path("demo/seven.png"))
    parser.add_argument("--question", default="Which digit is this?")
    parser.add_argument("--draw", default="Draw a seven.", help="what to draw; empty: nothing")
    parser.add_argument("--out", type=Path, default=Path("drawn.png"))
    asked = parser.parse_args()

    command = [sys.executable, "-m", "mllm_npu.cli", "serve", str(asked.run)]
    options = ["--port", "0", "--no-page", "--json"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as service:
        try:
            line = service.stdout.readline() if service.stdout else ""
            if line:  # it is told once everything answers; an error stands on the screen
                call(json.loads(line)["api"], asked)
        finally:
            service.terminate()
    sys.exit(0 if line else 1)


def call(address: str, asked: argparse.Namespace) -> None:
    """Ask about a picture word by word, then let the model draw."""
    client = OpenAI(base_url=address, api_key="none")
    model = client.models.list().data[0].id
    data = base64.b64encode(asked.picture.read_bytes()).decode()
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    content = [picture, {"type": "text", "text": asked.question}]
    messages = [{"role": "user", "content": content}]
    print(f"{model}, {asked.question} ", end="")
    for chunk in client.chat.completions.create(model=model, messages=messages, stream=True):
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()
    if asked.draw:
        made = client.images.generate(model=model, prompt=asked.draw)
        asked.out.write_bytes(base64.b64decode(made.data[0].b64_json))
        print(f"drawn: {asked.out}")


if __name__ == "__main__":
    main()
