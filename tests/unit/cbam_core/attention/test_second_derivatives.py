"""Forward-mode derivatives and Hessians (`torch.func`) of the maximum and of every attention module, in fp64."""

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from cbam_core.attention import VARIANTS, create_attention
from cbam_core.attention.maximum import max_over

# torch's own rules for forward mode are scripted, which torch itself now advises against
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")

NAMES = [name for name in VARIANTS if name != "none"]
SHAPES = [((2, 3, 4), 1), ((3, 4), -1), ((2, 300), 1), ((2, 40_000), 1)]  # one byte an index, one, two, two unsigned


def torch_max(x: Tensor, dim: int) -> Tensor:
    return x.max(dim).values


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize(("shape", "dim"), SHAPES)
@pytest.mark.parametrize("tracked", [True, False], ids=["requires grad", "plain"])
def test_the_maximum_in_forward_mode(shape, dim, tracked):
    x, tangent = random(*shape).requires_grad_(tracked), random(*shape)
    expected = jvp(lambda x: torch_max(x, dim), (x.detach(),), (tangent,))[1]
    assert torch.equal(jvp(lambda x: max_over(x, dim), (x,), (tangent,))[1], expected)
    with forward_ad.dual_level():
        dual = max_over(forward_ad.make_dual(x, tangent), dim)
        assert torch.equal(forward_ad.unpack_dual(dual).tangent, expected)
    batch = torch.stack([x.detach(), -x.detach()])
    pushed = vmap(lambda x: jvp(lambda x: max_over(x, dim), (x,), (tangent,))[1])(batch)
    assert torch.equal(pushed[0], expected)


def test_a_tie_is_followed_at_its_lowest_index_in_both_modes():
    x = torch.tensor([[3.0, 5.0, 5.0]], dtype=torch.float64, requires_grad=True)
    for jacobian in (jacfwd, jacrev):
        assert jacobian(lambda x: max_over(x, 1))(x).flatten().tolist() == [0, 1, 0]


@pytest.mark.parametrize("outer", [jacfwd, jacrev])
@pytest.mark.parametrize("inner", [jacfwd, jacrev])
def test_the_hessian_of_a_maximum(outer, inner):
    def loss(maximum):
        return lambda x: (maximum(x, 1) ** 3).sum()

    x = random(2, 3, 4)
    assert torch.allclose(outer(inner(loss(max_over)))(x), hessian(loss(torch_max))(x), rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tracked", [True, False], ids=["requires grad", "plain"])
def test_the_hessian_of_every_module(name, tracked):
    """Against central differences of the gradient, without and with weights that ask for one."""
    module = create_attention(name, 4).double().eval().requires_grad_(tracked)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5)

    def loss(x: Tensor) -> Tensor:
        return (module(x.view(2, 4, 2, 3)) ** 2).sum()

    x, step = random(48), 1e-5
    differences = [(grad(loss)(x + step * one) - grad(loss)(x - step * one)) / (2 * step) for one in torch.eye(48)]
    assert torch.allclose(hessian(loss)(x), torch.stack(differences), rtol=1e-4, atol=1e-5)
