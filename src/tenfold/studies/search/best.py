"""The best recipe of a search as a file: what it sets, and what its accuracy is worth."""

from pathlib import Path
from typing import Any

from tenfold.errors import counted
from tenfold.files import write_text
from tenfold.recipe import Options, Recipe
from tenfold.results.searches import SearchSummary, Trial
from tenfold.studies.search.definition import SearchPlan
from tenfold.studies.search.recipe_text import to_toml
from tenfold.studies.search.summary import recipe_of


def write_best(folder: Path, plan: SearchPlan, summary: SearchSummary) -> None:
    """Write `folder/best.toml`, a recipe for `load_recipe`; nothing where no trial is complete."""
    best = summary.best_trial
    if best is None:
        return
    recipe = tuned(recipe_of(best, plan.recipe), plan)
    values = to_toml(_differences(recipe))
    write_text(folder / "best.toml", f"{_header(folder, plan, summary, best)}\n{values}")


def tuned(recipe: Recipe, plan: SearchPlan) -> Recipe:
    """`recipe` under the name that it has in `best.toml`, so that its runs are a series of their
    own and no shipped recipe's; what the recipe says of itself is no longer so."""
    name = plan.recipe.name
    return recipe.but(name=f"{name}-best", description=f"{name} with the values of a search")


def _header(folder: Path, plan: SearchPlan, summary: SearchSummary, best: Trial) -> str:
    accuracy = best.accuracy or 0.0
    counts = summary.counts
    num_trained = counts.get("complete", 0) + counts.get("pruned", 0) + counts.get("failed", 0)
    path = folder / "best.toml"
    seeds = [plan.recipe.seed + number for number in (1, 2, 3)]
    lines = [
        f"The best of {counted(num_trained, 'trial')} of a search around the recipe {plan.source}.",
        "",
        f"  found by    trial {best.number} of the search in {folder.as_posix()}",
        f"  validation  {100 * accuracy:.2f} % after the last epoch, with seed {plan.recipe.seed}",
        f"  {_gain(summary, accuracy)}",
        "",
        "The best of many trials is partly the luckiest, so its validation accuracy is optimistic,",
        "the more so the more trials there were. No trial has seen the test pictures. Measure it",
        "with seeds that the search has not used:",
        "",
        *(f"  tenfold train {_quoted(path)} --seed {seed}" for seed in seeds),
    ]
    return "".join(f"# {_printable(line)}".rstrip() + "\n" for line in lines)


def _gain(summary: SearchSummary, accuracy: float) -> str:
    if summary.own_trial is None:
        return "the recipe  has no result of its own in this search yet"
    if summary.baseline == summary.best:
        return "the recipe  is this one: no trial was better"
    own = summary.own_trial.accuracy or 0.0
    gain = 100 * (accuracy - own)
    return f"the recipe  has {100 * own:.2f} %, so this is {gain:.2f} points better"


def _quoted(path: Path) -> str:
    text = path.as_posix()
    return f'"{text}"' if " " in text else text


def _printable(line: str) -> str:
    """TOML allows no control characters in comments, which a path may have."""
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _plain(value: Any) -> Any:
    """A tuple as a list, and tables in it as what differs from their defaults."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return _differences(value) if isinstance(value, Options) else value


def _differences(table: Options) -> dict[str, Any]:
    """The fields of a table that differ from their defaults, in the order of the schema."""
    chosen: dict[str, Any] = {}
    for key, own in table:
        if isinstance(own, Options):
            if inner := _differences(own):
                chosen[key] = inner
        elif key == "name" or own != type(table).model_fields[key].default:
            chosen[key] = _plain(own)
    return chosen
