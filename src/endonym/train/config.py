"""The settings of one training run. They bear identity; the machine's side is core/context.py.

No torch here: a recipe is read, and its addresses taken, before anything heavy is imported.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from endonym.core.config import Config

Curve = Literal["cosine", "wsd", "linear", "constant"]
"""The rate's shape after the warm-up (train/schedule.py)."""

Share = Annotated[float, Field(ge=0, lt=1)]


class Muon(Config):
    """Of the optimizer `muon`, for matrices inside the blocks; all else is AdamW's (train/optim.py)."""

    momentum: Share = 0.95
    """K. Jordan, "Muon" (2024), and Moonlight, arXiv:2502.16982: 0.95."""

    nesterov: bool = True
    """Jordan and Moonlight both."""

    ns_steps: int = Field(default=5, ge=1)
    """Newton-Schulz iterations. Jordan, Moonlight: 5."""

    adjust: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    """How the rate follows a matrix's shape. match_rms_adamw: 0.2 sqrt(max(rows, columns)), so that
    rate and decay tuned for AdamW serve (Moonlight, section 2.2); original: Jordan's factor."""


class Adapter(Config):
    """Low-rank matrices that learn beside frozen weights (train/adapter.py). Defaults: QLoRA,
    arXiv:2305.14314, appendix B.2, for models of up to 13B."""

    method: Literal["lora", "qlora"] = "lora"
    """lora: the base as it is, arXiv:2106.09685; qlora: the base in 4 bits (NF4)."""

    rank: int = Field(default=64, ge=1)
    """r of the product B A."""

    alpha: float = Field(default=16, gt=0)
    """The product is multiplied by alpha / rank."""

    dropout: Share = 0.1
    """On what goes into the matrices."""

    targets: list[str] = ["all-linear"]
    """Names of the modules they stand beside, e.g. q_proj; all-linear: every linear layer of the blocks."""

    bias: Literal["none", "all", "lora_only"] = "none"
    """Which biases learn, in PEFT's words."""


class Span(Config):
    """A stretch of a run: a phase of its data, with or without a rate of its own.

    A span that sets one of learning_rate, schedule, warmup, decay and final_share begins a curve, in
    which what it leaves out is the run's; that curve also covers the spans after it that set none.
    So a run whose spans set nothing has one curve from end to end.
    """

    steps: int = Field(gt=0)
    tokens_per_step: int | None = Field(default=None, gt=0)
    """Nominal: rows of a step times their length. Needed where schedule_by is "tokens"."""
    learning_rate: float | None = Field(default=None, gt=0)
    schedule: Curve | None = None
    warmup: float | None = Field(default=None, ge=0)
    """From the rate that the span before ended with. Below 1 a share of this curve, from 1 steps."""
    decay: float | None = Field(default=None, ge=0)
    final_share: float | None = Field(default=None, ge=0, le=1)

    @property
    def begins_curve(self) -> bool:
        own = (self.learning_rate, self.schedule, self.warmup, self.decay, self.final_share)
        return any(value is not None for value in own)


class Gate(Config):
    """A bound that a probed figure has to keep, and what follows (train/gate.py).

    stop:   the run ends early, once the figure keeps the bound
    extend: a run that ends without it goes on by extend_steps at its last rate, at most `times` times
            (K-EXAONE and EXAONE 4.0: context extension trains on until needles are found almost always)
    fail:   a run that ends without it ends with an error (Solar Open's and K-EXAONE's watch over what
            was known before)
    """

    figure: str
    """As the probes name it: "<probe>/<figure>"."""
    at_least: float | None = None
    at_most: float | None = None
    relative: bool = False
    """The bound is a factor of the figure's value before the first step."""
    action: Literal["stop", "extend", "fail"] = "fail"
    watch: bool = False
    """Of `fail`: judged whenever the figure is measured, not only at the end."""
    extend_steps: int | None = Field(default=None, gt=0)
    times: int = Field(default=1, ge=1)
    """Ours: the reports give no bound."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a gate needs at_least or at_most")
        if (self.action == "extend") != (self.extend_steps is not None):
            raise ValueError('extend_steps goes with action = "extend", and only with it')
        if self.watch and self.action != "fail":
            raise ValueError('watch goes with action = "fail" only')
        return self


class Keep(Config):
    """Which checkpoints stay on the disk (train/state.py)."""

    last: int = Field(default=2, ge=1)
    """The newest so many."""

    every: int | None = Field(default=None, gt=0)
    """Besides, one is written after every so many steps, and these all stay."""


class TrainConfig(Config):
    """What a run of the loop is, beside its model, objective and data.

    How many rows a step holds is the loader's affair; how many of them go through the model at once
    is `context.rows_per_device` and changes no result (train/loop.py).
    """

    steps: int = Field(gt=0)
    """Optimizer steps."""

    learning_rate: float = Field(gt=0)
    """The highest rate of the schedule."""

    schedule: Curve = "cosine"
    """The rate's shape after the warm-up (train/schedule.py). Typhoon-S trains SFT and OPD with cosine."""

    warmup: float = Field(default=0.05, ge=0)
    """Below 1: share of the steps. From 1: a number of steps. Typhoon-S: ratio 0.05 (train_sft.sh)."""

    decay: float = Field(default=0.1, ge=0)
    """Length of the last leg of `wsd`, counted like warmup. MiniCPM (arXiv:2404.06395) finds 10 % enough."""

    final_share: float = Field(default=0.0, ge=0, le=1)
    """The rate at the end as a share of learning_rate. Solar Open ends at 3e-6 of 2.5e-4: 0.012."""

    schedule_by: Literal["steps", "tokens"] = "steps"
    """What the curve counts: steps, or the spans' nominal tokens, where steps differ in size."""

    spans: list[Span] = []
    """The run's stretches, in order; their steps add up to `steps`. Empty: one."""

    optimizer: Literal["adamw", "muon", "adamw8bit"] = "adamw"
    """adamw: Solar Open; muon: K-EXAONE, with AdamW beside it; adamw8bit: moments in 8 bits,
    arXiv:2110.02861 (train/optim.py)."""

    betas: tuple[Share, Share] = (0.9, 0.95)
    """Adam's decay rates. Solar Open, arXiv:2601.07022: .9/.95."""

    eps: float = Field(default=1e-8, gt=0)
    """Added to Adam's denominator. Solar Open: 1e-8."""

    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled; on matrices only (train/optim.py). Solar Open: .1."""

    muon: Muon = Muon()

    clip: float = Field(default=1.0, ge=0)
    """Largest global gradient norm; 0 switches clipping off. Solar Open: 1.0."""

    ema: Share = 0.0
    """Decay of a running average of the weights, which is then what is probed and what the run gives
    (train/ema.py). 0: none; no report of ours uses one."""

    adapter: Adapter | None = None
    """LoRA instead of all weights; merged into them at the end."""

    precision: Literal["auto", "float32", "bfloat16", "float8"] = "auto"
    """Of the matrix products; weights and optimizer are float32. `auto`: train/precision.py.
    float8: of the blocks' linear layers, all else bfloat16 (train/precision.py). K-EXAONE: FP8."""

    seed: int = 0
    """Of dropout and of whatever else an objective draws; the data order has its own seed."""

    probe_every: int = Field(default=0, ge=0)
    """Steps between two measurements of the probes. 0: before the first step and after the last."""

    gates: list[Gate] = []
    """What probed figures decide."""

    max_bad_steps: int = Field(default=5, ge=1)
    """So many steps in a row without an update, or returns to the same checkpoint, end the run with
    an error."""

    on_spike: Literal["note", "skip", "rollback"] = "note"
    """What follows a spike (train/health.py). note: it is written down; skip: its update is not taken;
    rollback: back to an earlier checkpoint, and on without the data from there to the spike (PaLM,
    arXiv:2204.02311, section 5.1). A step that is not finite is never taken."""

    spike_factor: float = Field(default=2.0, gt=1)
    """A loss above so many medians is a spike. LLM Foundry's KillLossSpike: twice the mean of 100."""

    spike_norm_factor: float = Field(default=10.0, gt=1)
    """A gradient norm, before clipping, above so many medians is a spike. Ours: norms scatter more."""

    spike_window: int = Field(default=100, ge=2)
    """The medians are over so many good steps; before there are as many nothing is a spike. Also the
    steps between two checkpoints to go back to, unless keep.every says otherwise: PaLM went back
    about 100."""

    keep: Keep = Keep()

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Every default, as JSON: what a setting means in a checkpoint written before there was it."""
        plain = {
            name: field.get_default(call_default_factory=True)
            for name, field in cls.model_fields.items()
            if not field.is_required()
        }
        return cls.model_construct(**plain).model_dump(mode="json", include=set(plain))
