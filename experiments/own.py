"""A system of your own under the protocol of the papers' scripts, beside the classical ones.

    python -m experiments.own my_module:MINE --steps 2000 --turn --out runs/mine

``my_module:MINE`` is its row, a `jfusion.catalogue.System`, in a module of the working directory or an installed one;
what follows are the settings of `experiments.runner.Experiment`. ``--data cave/first20`` or another data set takes part
without noise and at ratio 4 unless ``--protocol`` says otherwise.
"""

from __future__ import annotations

import sys
from pathlib import Path

from experiments.runner import Experiment, main
from jfusion import catalogue
from jfusion.data.simulate import Protocol
from jfusion.errors import InputError
from jfusion.process import answered, use_all_cores

EXPERIMENT = Experiment(out=Path("runs/own"))
PAPER = Experiment(protocol=Protocol(ratio=4), out=EXPERIMENT.out)
"""For data sets, whose images are in shares of full scale."""


def named(words: list[str]) -> str:
    """The name of the system that the first word of the command line says.

    Raises:
        InputError: it says none.
    """
    if not words or words[0].startswith("-"):
        raise InputError("say first which system, as module:NAME of its row, such as experiments.tutorial:MINE.")
    return catalogue.get(words[0]).name


if __name__ == "__main__":
    if sys.argv[1:2] in (["-h"], ["--help"]):
        sys.exit(answered(lambda: print(__doc__)))
    use_all_cores()
    names: list[str] = []
    if code := answered(lambda: names.append(named(sys.argv[1:]))):
        sys.exit(code)
    system = sys.argv.pop(1)
    if not any(word.partition("=")[0] == "--data" for word in sys.argv):
        sys.argv += ["--data", EXPERIMENT.data]
    main(names[0], PAPER, EXPERIMENT, script=f"own {system}")
