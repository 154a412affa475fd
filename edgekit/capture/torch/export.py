"""nn.Module -> Graph, through torch.export with no decompositions."""

from __future__ import annotations

import contextlib
import inspect
import logging
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import PurePath
from typing import Any

import torch

from edgekit.capture.prove import doubled, follows, prove
from edgekit.capture.torch.aliases import aliases_matter
from edgekit.capture.torch.batch import free_batch
from edgekit.capture.torch.dropout import as_trained
from edgekit.capture.torch.fx import is_library
from edgekit.capture.torch.importer import Importer
from edgekit.capture.torch.inline import inline_regions
from edgekit.errors import CaptureError, EdgekitError
from edgekit.graph.check import check
from edgekit.graph.ir import Graph


def capture(
    module: torch.nn.Module,
    example: torch.Tensor | Sequence[torch.Tensor],
    name: str = "model",
    *,
    training: bool = False,
) -> Graph:
    """Export `module` and import it.

    Args:
        module: in eval mode; its tensors are shared with the graph, not copied.
        example: (1, C, H, W) float32, or one such tensor per input; shapes are recorded from it.
        training: keep what only training needs: what each constant was or follows from, how batch norms
            train, what is left out at random. The function is that of eval mode all the same.
    Returns: a checked Graph whose result equals eager within 1e-4 relative, for batches of 1 and, when
        `graph.batchable`, of any N.
    Raises: CaptureError naming every operator without importer and its module, or the export's own reason.
    """
    examples = _examples(example, name)
    active = [path or "the module" for path, part in module.named_modules() if part.training]
    if active:
        raise CaptureError(f"[capture] {name} is in training mode at {active[0]}: call module.eval() first")
    with torch.no_grad():
        try:
            reference = module(*(x.clone() for x in examples))
        except Exception as error:  # the module's own code may raise anything
            shapes = ", ".join(str(tuple(x.shape)) for x in examples)
            raise CaptureError(
                f"[capture] {name} does not run on an input {shapes}: {_one_line(error)}"
            ) from error
        untouched: AbstractContextManager[dict[str, str]] = contextlib.nullcontext({})
        with as_trained(module, examples) if training else untouched as stochastic:
            program = _exported(module, examples, name)
            graph = import_program(
                program, name, example, reference, module=module, training=training, stochastic=stochastic
            )
        if training and not graph.batchable:
            graph.batchable = _follows(graph, module, examples)
    return graph


def _exported(
    module: torch.nn.Module, examples: list[torch.Tensor], name: str
) -> torch.export.ExportedProgram:
    try:
        with _silent():
            return torch.export.export(module, tuple(x.clone() for x in examples))
    except Exception as error:  # torch.export raises its internals' exceptions unwrapped
        raise CaptureError(f"[capture] {_untraceable(error, module, name)}") from error


def _follows(graph: Graph, module: torch.nn.Module, examples: list[torch.Tensor]) -> bool:
    """Whether the graph makes of a batch what the module does; sizes that grow with it are left open."""
    batches = doubled(examples)
    try:
        answers = module(*(x.clone() for x in batches))
    except Exception:  # a module of one image, in its own words
        return False
    try:
        with as_trained(module, examples) as stochastic:
            program = _exported(module, batches, graph.name)
            other = _imported(program, graph.name, module, True, stochastic)
    except EdgekitError:
        return False
    free_batch(graph, other)
    return follows(graph, batches, _flatten(answers))


def parameters(module: torch.nn.Module) -> list[str]:
    """Names of what the module's forward takes, in order; empty where it does not say."""
    try:
        known = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter.name for parameter in known if parameter.kind in named]


def import_program(
    program: torch.export.ExportedProgram,
    name: str,
    example: torch.Tensor | Sequence[torch.Tensor],
    reference: Any = None,
    *,
    module: torch.nn.Module | None = None,
    training: bool = False,
    stochastic: dict[str, str] | None = None,
) -> Graph:
    """An ExportedProgram (from `capture` or a loaded .pt2) as a Graph; see `capture`."""
    examples = _examples(example, name)
    with torch.no_grad():
        graph = _imported(program, name, module, training, stochastic)
        if len(graph.inputs) != len(examples):
            raise CaptureError(
                f"[capture] {name} takes {len(graph.inputs)} inputs: {len(examples)} examples were given"
            )
        check(graph)
        if reference is None:
            reference = program.module()(*(x.clone() for x in examples))
        prove(graph, examples, _flatten(reference))
    return graph


def _imported(
    program: torch.export.ExportedProgram,
    name: str,
    module: torch.nn.Module | None,
    training: bool,
    stochastic: dict[str, str] | None,
) -> Graph:
    inline_regions(program)
    if aliases_matter(program):
        program = program.run_decompositions({})
    graph = Importer(program, name, module, training, stochastic).graph
    graph.remove_dead()
    return graph


def _examples(example: torch.Tensor | Sequence[torch.Tensor], name: str) -> list[torch.Tensor]:
    examples = [example] if isinstance(example, torch.Tensor) else list(example)
    for x in examples:
        if x.dtype != torch.float32 or x.ndim < 1 or x.shape[0] != 1:
            raise CaptureError(
                f"[capture] {name}: the example is {str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}: "
                "shapes are recorded from one float32 image, (1, C, H, W)"
            )
    return examples


def _flatten(result: Any) -> list[torch.Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Torch logs whole graphs when a trace fails, which the error says in one line, and warns of the lists in
    which its own recurrent layers keep their weights.
    """
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The tensor attributes? self")
            yield
    finally:
        logger.setLevel(level)


def _untraceable(error: BaseException, module: torch.nn.Module, name: str) -> str:
    """Where the model's own code met what cannot be traced, and what to write there instead."""
    place = _place(error, module)
    if type(error).__name__ in ("GuardOnDataDependentSymNode", "UserError", "PendingUnbackedSymbolNotFound"):
        return (
            f"{name} decides by the picture's numbers{place}: a graph has one way for all pictures, "
            "which torch.where can choose within"
        )
    return f"torch.export cannot trace {name}{place}: {_one_line(error)}"


def _place(error: BaseException, module: torch.nn.Module) -> str:
    """ "At MODULE (FILE:LINE), the last frame in the model's own code."""
    paths = {id(part): path or "the top level" for path, part in module.named_modules()}
    frames = []
    while error is not None:
        frames += [
            (f.f_code.co_filename, line, f.f_locals) for f, line in traceback.walk_tb(error.__traceback__)
        ]
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
        if frames:
            break
    own = [frame for frame in frames if not is_library(frame[0])]
    if not own:
        return ""
    file, line, _ = own[-1]
    owners = [paths[id(known["self"])] for _, _, known in frames if id(known.get("self")) in paths]
    return f" at {owners[-1] if owners else 'the top level'} ({PurePath(file).name}:{line})"


def _one_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
