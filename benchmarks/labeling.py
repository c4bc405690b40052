"""What asking costs beside the answering: 1,000 questions to a server that takes 50 ms each, four at a time.

The server is the tests' stand-in, in a process of its own. Prints the time against questions · seconds / concurrency, then a second
labeling over the same answers. Run from the repository: ``python benchmarks/labeling.py``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from megu.labeling.ollama.answer_store import Answers
from megu.labeling.ollama.asking import Asking
from megu.labeling.ollama.labeler import OllamaLabeler
from megu.labeling.ollama.params import Connection, Judging
from megu.labeling.ollama.prompts import load
from megu.labeling.ollama.questions import Questions
from megu.labeling.ollama.server import Server
from megu.labeling.protocol import Question

ROOT = Path(__file__).resolve().parents[1]


def question(classes: int, exemplars: int, references: int) -> Question:
    """Made-up images of the size of Fashion-MNIST's, blotches, so that their PNGs are about as long."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (classes, exemplars + references, 7, 7, 1), dtype=np.uint8).repeat(4, 2).repeat(4, 3)
    ids = np.array([f"{number:032x}" for number in range(classes * exemplars)], dtype="S32")
    return Question(
        concepts=tuple(f"class {k}" for k in range(classes)),
        references=images[:, exemplars:],
        exemplars=images[:, :exemplars].reshape(-1, 28, 28, 1),
        exemplar_class=np.repeat(np.arange(classes), exemplars),
        exemplar_ids=ids,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--delay", type=float, default=0.05)
    parser.add_argument("--port", type=int, default=11511)
    chosen = parser.parse_args()
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.support.ollama_server",
            "--made-up",
            "10",
            "--port",
            str(chosen.port),
            "--delay",
            str(chosen.delay),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        print(server.stdout.readline().strip())
        measure(chosen.questions, chosen.concurrency, chosen.delay, f"127.0.0.1:{chosen.port}")
    finally:
        server.terminate()
        server.wait()


def measure(count: int, concurrency: int, delay: float, host: str) -> None:
    """Ask ``count`` True-or-False questions, then again; print both."""
    exemplars = -(-count // 100)
    judging = Judging(strategy="pairwise", exemplars=exemplars, min_own=0, min_repeat=0, min_symmetry=-1, max_position=1)
    connection = Connection(host=host, concurrency=concurrency)
    about = question(10, exemplars, judging.references)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        reached = Server(judging.model, connection)
        model = reached.ready()
        reached.warm_up(judging.num_ctx)
        questions = Questions(about, judging, load(), model.digest)
        pairs = [questions.pair(x, k) for k in range(10) for x in range(10 * exemplars)][:count]
        ready = time.perf_counter() - started
        with Answers(Path(folder), model.digest) as answers:
            started = time.perf_counter()
            Asking(reached, model, questions, answers, judging.num_ctx).all(pairs, lambda amount: None)
            took = time.perf_counter() - started
        size = np.mean([len(image.png) for image in questions.exemplars])
        ideal = count * delay / concurrency
        print(f"start-up {ready:.2f} s (pre-flight, warm-up, {count} keys), images of {size / 1000:.0f} kB")
        print(f"{count} questions at concurrency {concurrency}: {took:.2f} s, ideal {ideal:.2f} s, ratio {took / ideal:.3f}")
        labeler = OllamaLabeler(judging, load(), model.digest, Path(folder), connection)
        labeler.judge(about)
        print(f"the rest of that labeling asked {labeler.new}")
        again = OllamaLabeler(judging, load(), model.digest, Path(folder), connection)
        started = time.perf_counter()
        again.judge(question(10, exemplars, judging.references))
        print(f"second labeling: {again.new} questions, {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
