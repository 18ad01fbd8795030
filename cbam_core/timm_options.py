"""timm's optimisers that a spec may name as `timm:NAME`, and what each takes. Torch-free; `timm_optimizer` builds them.

A test holds the tables to the timm that is installed: its names, the arguments of its classes, what they remember.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, StringConstraints, ValidationInfo, field_validator

from cbam_core.spec_model import Share, SpecModel
from cbam_core.suggestions import did_you_mean

PREFIX = "timm:"
WRAPPER = "lookahead_"


@dataclass(frozen=True)
class OptimizerFacts:
    """`slots`: numbers remembered for each parameter, by default; `options`: further keyword arguments of its class."""

    slots: int
    takes_momentum: bool
    options: tuple[str, ...]


_ADAFACTOR = "eps eps_scale clip_threshold decay_rate betas scale_parameter min_dim_size_to_factor caution"
_MUON = (
    "nesterov ns_steps ns_coefficients eps safety_factor adjust_lr_fn conv_mode normalize_spatial "
    "fallback_lr_scale betas algo scale_eps"
)
_FAMILIES = (  # slots, momentum, the names of timm's, the options that all of them take
    (2, False, "adabelief radabelief", "betas eps amsgrad decoupled_decay fixed_decay rectify degenerated_to_sgd"),
    (2, False, "adadelta", "rho eps"),
    (1, False, "adafactor", _ADAFACTOR),
    (2, False, "cadafactor", _ADAFACTOR),
    (
        *(1, True, "adafactorbv adafactorbvc cadafactorbv cadafactorbvc"),
        "min_dim_size_to_factor decay_rate decay_offset beta2_cap eps clipping_threshold unscaled_wd caution "
        "corrected_weight_decay",
    ),
    (1, False, "adagrad", "lr_decay initial_accumulator_value eps"),
    (2, False, "adam", "betas eps amsgrad decoupled_weight_decay"),
    (2, False, "adamax radamlegacy", "betas eps"),
    (2, False, "adamw", "betas eps amsgrad"),
    (
        *(2, False, "adamc adamwlegacy cadamc cadamw"),
        "betas eps amsgrad caution corrected_weight_decay clipping_threshold",
    ),
    (2, False, "adamp cadamp", "betas eps delta wd_ratio nesterov caution"),
    (4, False, "adan adanw cadan cadanw", "betas eps no_prox caution"),
    (
        *(2, False, "adopt adoptc adoptw cadopt cadoptc cadoptw"),
        "betas eps clip_exp decoupled corrected_weight_decay caution",
    ),
    (
        *(2, False, "clamb clambw lamb lambc lambcd lambcw lambw"),
        "bias_correction betas eps grad_averaging max_grad_norm trust_clip always_adapt caution decoupled_decay "
        "corrected_weight_decay",
    ),
    (2, False, "claprop laprop lapropc", "betas eps caution corrected_weight_decay"),
    (1, True, "larc lars nlarc nlars", "dampening nesterov trust_coeff eps trust_clip always_adapt"),
    (1, False, "clion clionc lion lionc", "betas caution corrected_weight_decay"),
    (3, True, "madgrad madgradw", "eps decoupled_decay"),
    (3, False, "cmars mars", "betas eps gamma mars_type optimize_1d lr_1d_factor betas_1d caution"),
    (1, True, "muon nmuon", _MUON),
    (2, True, "adamuon nadamuon", _MUON),
    (2, False, "nadam", "betas eps momentum_decay decoupled_weight_decay"),
    (2, False, "nadamlegacy", "betas eps schedule_decay"),
    (2, False, "cnadamc cnadamw nadamc nadamw", "betas eps caution corrected_weight_decay clipping_threshold"),
    (
        *(1, False, "novograd novogradc novogradw"),
        "betas eps grad_averaging amsgrad decoupled_decay corrected_weight_decay",
    ),
    (2, False, "radam radamw", "betas eps decoupled_weight_decay"),
    (2, True, "rmsprop", "alpha eps centered"),
    (
        *(2, True, "crmsproptf rmsproptf rmsproptfc rmsproptfw"),
        "alpha eps centered decoupled_decay corrected_weight_decay lr_in_momentum caution",
    ),
    (1, True, "momentum nesterov sgd", "dampening nesterov"),
    (1, True, "csgdp sgdp", "dampening nesterov eps delta wd_ratio caution"),
    (1, True, "csgdc csgdw nesterovw sgdc sgdw", "dampening nesterov caution corrected_weight_decay"),
)
OPTIMIZERS = {
    name: OptimizerFacts(slots, takes_momentum, tuple(options.split()))
    for slots, takes_momentum, names, options in _FAMILIES
    for name in names.split()
}
REFUSED = {
    "adahessian": "it needs second derivatives of the loss",
    **dict.fromkeys(("kron", "kronc", "kronw"), "a training that is resumed would not go on with the same bits"),
    **dict.fromkeys(
        ("fusedadam", "fusedadamw", "fusedlamb", "fusednovograd", "fusedsgd"),
        "it needs NVIDIA's apex, which is not part of cbam-lab",
    ),
    **dict.fromkeys(
        (
            *("bnbadam", "bnbadam8bit", "bnbadamw", "bnbadamw8bit", "bnbademamix", "bnbademamix8bit"),
            *("bnblion", "bnblion8bit", "bnbsgd", "bnbsgd8bit"),
        ),
        "it needs bitsandbytes, which is not part of cbam-lab",
    ),
}
"""What timm lists and no spec may name, and why."""

if TYPE_CHECKING:
    TimmType = str
else:
    TimmType = Literal[tuple(f"{PREFIX}{name}" for name in sorted(OPTIMIZERS))]
_TOO_LARGE = 10**18  # also for torch, which counts in 64 bits
OptionName = Annotated[str, StringConstraints(max_length=64)]


def _option_value(value: object) -> object:
    """Say in one line what pydantic would say for each member of the union."""
    if isinstance(value, list | tuple) and all(map(_is_number, value)):
        return tuple(value)
    if value is None or isinstance(value, bool | str) or _is_number(value):
        return value
    raise ValueError("an option is a number below 1e18, a word, true, false, null, or a list of such numbers")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _TOO_LARGE


OptionValue = Annotated[
    bool
    | Annotated[int, Field(gt=-_TOO_LARGE, lt=_TOO_LARGE)]
    | float
    | Annotated[str, StringConstraints(max_length=64)]
    | Annotated[tuple[float, ...], Field(max_length=8)]
    | None,
    BeforeValidator(_option_value),
]


class TimmOptimizerSpec(SpecModel):
    """An optimiser of timm's, as `timm:lion`, with timm's own defaults for what is not said."""

    type: TimmType
    lr: PositiveFloat = Field(description="peak learning rate, reached after the warm-up")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="as the optimiser applies it")
    momentum: Share | None = Field(None, description="for those that take one; null: timm's default")
    decay_norms_and_biases: bool = Field(True, description="weight decay also on biases and normalisation weights")
    options: dict[OptionName, OptionValue] = Field(
        {}, max_length=16, description="further arguments of the optimiser, as {betas: [0.9, 0.95]}"
    )

    @property
    def name(self) -> str:
        """timm's own name of it."""
        return self.type.removeprefix(PREFIX)

    @property
    def facts(self) -> OptimizerFacts:
        """What it remembers and takes."""
        return OPTIMIZERS[self.name]

    @field_validator("momentum")
    @classmethod
    def _momentum_is_taken(cls, value: float | None, info: ValidationInfo) -> float | None:
        facts = _facts_of(info)
        if value is not None and facts is not None and not facts.takes_momentum:
            raise ValueError(f"{info.data['type']} takes no momentum")
        return value

    @field_validator("options")
    @classmethod
    def _options_are_taken(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        facts = _facts_of(info)
        if facts is not None and (unknown := [name for name in value if name not in facts.options]):
            hint = did_you_mean(unknown[0], facts.options, most=1)
            known = ", ".join(facts.options)
            raise ValueError(f"{info.data['type']} takes no {unknown[0]!r}{hint}; it takes {known}")
        return value


def _facts_of(info: ValidationInfo) -> OptimizerFacts | None:
    return OPTIMIZERS.get(str(info.data.get("type", "")).removeprefix(PREFIX))


def refusal(type_: str, own: tuple[str, ...]) -> str | None:
    """Why a spec may not name this optimiser; None where it may. `own` are the types that are not timm's."""
    name = type_.removeprefix(PREFIX)
    if type_ in own or (type_.startswith(PREFIX) and name in OPTIMIZERS):
        return None
    if type_.startswith(PREFIX) and name in REFUSED:
        return f"{type_} cannot be used: {REFUSED[name]}"
    if type_.startswith(PREFIX + WRAPPER):
        return f"{type_} cannot be used: an evaluation would not see the slow weights that it keeps"
    is_timms = type_.startswith(PREFIX) or name in OPTIMIZERS
    hint = did_you_mean(name, OPTIMIZERS, prefix=PREFIX) if is_timms else did_you_mean(name, own)
    return (
        f"unknown optimiser {type_[:64]!r}{hint}; known are {', '.join(own)} and {PREFIX}<name>, "
        "as timm.optim.list_optimizers() has it"
    )
