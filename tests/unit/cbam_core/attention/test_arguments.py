"""The constructors of attention modules refuse whatever their options refuse, and say what there is to choose."""

from typing import Literal, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cbam_core.attention import BAM, CBAM, GCT, SCSE, VARIANTS, ChannelAttention, SpatialAttention, create_attention
from cbam_core.attention.options import ChannelPool, SpatialPool

NAMES = [name for name in VARIANTS if name != "none"]
WORDS = st.sampled_from(["official", "timm", "batch", "none", "sum", "max", "l2", "add", "typo", ""])
VALUES = st.one_of(
    st.integers(-1, 40), st.booleans(), st.floats(-1, 1), WORDS, st.none(),
    st.lists(st.sampled_from(["avg", "max", "lp", "lse", "conv", "median"]), max_size=3),
)  # fmt: skip


def fitting(name: str, option: str) -> st.SearchStrategy[object]:
    """Values that an option may well take, so that combinations of them are tried."""
    annotation = VARIANTS[name].model_fields[option].annotation
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if option in ("pools", "spatial_pools"):
        pools = get_args(ChannelPool if option == "pools" else SpatialPool)
        return st.lists(st.sampled_from(pools), max_size=2)
    return st.sampled_from([True, False] if annotation is bool else [0.5, 1, 3, 7, 16])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60)
@given(data=st.data())
def test_a_class_takes_what_its_options_take_and_nothing_else(name, data):
    fields = [option for option in VARIANTS[name].model_fields if option != "type"]
    chosen = data.draw(st.lists(st.sampled_from(fields), unique=True, max_size=4))
    arguments = {option: data.draw(st.one_of(fitting(name, option), VALUES)) for option in chosen}
    made = type(create_attention(name, 8))
    try:
        VARIANTS[name](**arguments)
    except ValidationError as error:
        with pytest.raises(ValueError, match=str(error.errors()[0]["loc"][0] if error.errors()[0]["loc"] else "")):
            made(8, **arguments)
    else:
        assert isinstance(made(8, **arguments), made)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [0, -3, 2.0, "8", True])
def test_channels_are_counted(name, channels):
    with pytest.raises(ValueError, match="channels"):
        type(create_attention(name, 8))(channels)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CBAM(64, init="foo"), "init must be official or timm; got 'foo'$"),
        (lambda: CBAM(64, init="oficial"), r"got 'oficial' \(did you mean official\?\)"),
        (lambda: CBAM(64, spatial_norm="batsh"), r"spatial_norm must be batch or none; .*\(did you mean batch\?\)"),
        (lambda: CBAM(64, gate="sigmod"), r"sigmoid or hard_sigmoid; .*\(did you mean sigmoid\?\)"),
        (lambda: CBAM(64, order="channel_spatal"), r"parallel, channel or spatial; .*did you mean channel_spatial"),
        (lambda: CBAM(64, pools=("avg", "avg")), "^pools: each pool at most once; got avg, avg$"),
        (lambda: CBAM(64, kernel_size=4), "^kernel_size must be odd, so that the map keeps its size; got 4$"),
        (lambda: CBAM(64, pools="avg"), "pools must be a valid tuple; got 'avg'"),
        (lambda: CBAM(64, order="channel", kernel_size=3), "`kernel_size` says nothing about order: channel"),
        (lambda: CBAM(64, init="foo", gate="bar"), "gate must be .*; init must be "),
        (lambda: BAM(64, fusion="typo"), "fusion must be product or sum; got 'typo'"),
        (lambda: SCSE(64, fusion="x"), "fusion must be sum or max; got 'x'"),
        (lambda: GCT(64, norm="x"), "norm must be l2 or l1; got 'x'"),
        (lambda: ChannelAttention(8, init="foo"), "init must be official or timm; got 'foo'"),
        (lambda: ChannelAttention(8, gate="sigmod"), r"\(did you mean sigmoid\?\)"),
        (lambda: ChannelAttention(8, pools=("avg", "median")), "each of pools must be avg, max, lp or lse"),
        (lambda: ChannelAttention(8, pools=("avg", "avg")), "pools: each at most once; got avg, avg"),
        (lambda: ChannelAttention(8, pools="avg"), "pools must be a list of at least one of"),
        (lambda: SpatialAttention(pools=("max", "max")), "pools: each at most once"),
        (lambda: SpatialAttention(pools=("median",)), "each of pools must be avg, max or conv"),
        (lambda: SpatialAttention(norm="foo"), "norm must be batch or none; got 'foo'"),
        (lambda: SpatialAttention(gate=None), "gate must be sigmoid or hard_sigmoid; got None"),
        (lambda: SpatialAttention(init="foo"), "init must be official or timm; got 'foo'"),
    ],
)
def test_what_cannot_be_says_what_can(build, message):
    with pytest.raises(ValueError, match=message):
        build()
