"""Where the candidates of a run come from: the generator, in blocks, or files."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from onnes.campaign.canonical import content_hash
from onnes.campaign.funnel import Watcher
from onnes.campaign.ledger import Candidate, Ledger
from onnes.campaign.reading import Files
from onnes.campaign.settings import GeneratePart, Settings, naming
from onnes.errors import SettingsError
from onnes.parallel import Engine, WorkerDiedError, completed

if TYPE_CHECKING:
    from onnes.generate.asked import SamplerSettings


class Source(Protocol):
    """Candidates of a run, checked before anything is written."""

    digest: str

    def fill(self, ledger: Ledger, workers: Engine, watcher: Watcher) -> None:
        """Bring the candidates that are missing into the ledger."""


def source(settings: Settings) -> Source:
    """Check where the candidates come from.

    Raises
    ------
    SettingsError
        Whatever is wrong with the settings of the generator.
    InputError
        ``no-structures`` when files are screened and none could be read.
    """
    if settings.generate.paths:
        return Files(settings)
    if settings.check.dimensions == "slab":
        raise SettingsError(
            "bulk-generator",
            'check.dimensions = "slab": the generators draw bulk crystals only; screen your own slabs with --from',
        )
    return Generated(settings)


def require_same(ledger: Ledger, chosen: Source, settings: Settings) -> None:
    """Refuse to mix candidates of two origins in one run; called before the run is touched.

    Only a run over the same files that was made when their digest was another one gets the present digest.

    Raises
    ------
    SettingsError
        ``other-source``.
    """
    held = ledger.get_meta("source")
    if held is not None and held != chosen.digest:
        if not isinstance(chosen, Files):
            raise SettingsError(
                "other-source",
                "this run's crystals were made with other seed, model, files or generate settings; use another --out",
            )
        if not chosen.adopt(ledger, held):
            raise SettingsError(
                "other-source",
                "this run's crystals come from a generator, or from files of other names or content; use another --out",
            )
    most = settings.run.n * max(settings.active.rounds, len(ledger.get_meta("rounds", [])), 1)
    if not settings.generate.paths and any(c.index >= most for c in ledger.candidates()):
        n = len(ledger.candidates())
        raise SettingsError(
            "other-source", f"the run holds {n} crystals, more than n = {settings.run.n}; use another --out"
        )


class Generated:
    """Crystals of a generator, in blocks of consecutive indices."""

    def __init__(self, settings: Settings) -> None:
        from onnes.generate.models import open_sampler
        from onnes.generate.write import sampler_marks

        self.settings = settings
        with naming("generate"):
            self.asked = sampler_settings(settings.generate)
            self.model = open_sampler(self.asked).checkpoint.hash
        # The order of elements in a list means nothing.
        part = settings.generate.model_dump()
        part.update(elements=sorted(set(part["elements"])), exclude=sorted(set(part["exclude"])))
        marks = sampler_marks(self.asked)
        self.digest = content_hash([self.model, settings.run.seed, part, *([marks] if marks else [])])

    def fill(self, ledger: Ledger, workers: Engine, watcher: Watcher) -> None:
        """Draw the blocks that are missing, in the workers when there are several."""
        from onnes.generate.sampling import BLOCK

        n, seed = self.settings.run.n, self.settings.run.seed
        held = {c.index for c in ledger.candidates()}
        chunks = [(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]
        todo = [c for c in chunks if not set(range(*c)) <= held]
        watcher.begin("generate", n, len(held))
        watcher.advance("generate", len(held), 0)

        def store(drawn: list[tuple[int, dict[str, Any]]], chunk: tuple[int, int]) -> None:
            _store(ledger, drawn, self.digest, chunk, f"{self.asked.model} {self.model}", held, watcher)

        with naming("generate"):
            if workers.remote and len(todo) > 1:
                draw = partial(_draw, self.asked, seed)
                for chunk, drawn in completed(workers, draw, todo):
                    if isinstance(drawn, WorkerDiedError):
                        raise drawn
                    store(drawn, chunk)
            else:
                for chunk in todo:
                    store(sample_chunk(self.asked, *chunk, seed), chunk)
        watcher.end("generate")


def sampler_settings(part: GeneratePart) -> SamplerSettings:
    """Translate the settings of a run into those of the sampler."""
    from onnes.generate.asked import SamplerSettings

    target = float(part.target_tc_K) or None
    return SamplerSettings(
        model=part.model,
        steps=part.steps or None,
        temperature=float(part.temperature),
        elements=tuple(part.elements),
        exclude=tuple(part.exclude),
        target_tc=target,
        guidance=float(part.guidance),
        formula=part.formula,
        atoms=part.atoms or None,
        space_group=part.space_group or None,
    )


def _draw(settings: SamplerSettings, seed: int, chunk: tuple[int, int]) -> list[tuple[int, dict[str, Any]]]:
    return sample_chunk(settings, *chunk, seed)


def sample_chunk(
    settings: SamplerSettings, start: int, stop: int, seed: int
) -> list[tuple[int, dict[str, Any]]]:
    """Draw the crystals with these indices."""
    from onnes.campaign.stages import plain
    from onnes.generate.models import open_sampler

    return [(index, plain(s)) for index, s in open_sampler(settings).sample(start, stop, seed)]


def _store(
    ledger: Ledger,
    drawn: list[tuple[int, dict[str, Any]]],
    source: str,
    chunk: tuple[int, int],
    model: str,
    held: set[int],
    watcher: Watcher,
) -> None:
    fresh = [
        Candidate(f"g{index:06d}", index, structure, model, index)
        for index, structure in drawn
        if index not in held
    ]
    ledger.add_candidates(fresh, chunk=(source, *chunk))
    watcher.advance("generate", len(fresh), 0)
