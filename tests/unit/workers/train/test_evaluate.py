import torch
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, recall_score, top_k_accuracy_score
from torch import nn

from workers.train.distributed import ProcessGroup
from workers.train.evaluate import evaluate

ALONE = ProcessGroup(0, 1, torch.device("cpu"))


def test_every_figure_is_scikit_learns():
    torch.manual_seed(0)
    network, images, labels = nn.Linear(6, 8).double(), torch.randn(90, 6).double(), torch.randint(0, 8, (90,))
    batches = [(images[:20], labels[:20]), (images[20:], labels[20:]), (images[:0], labels[:0])]
    result = evaluate(network, batches, ALONE, num_classes=8, stop=lambda: None)
    scores = network(images).detach().softmax(1)
    predicted = scores.argmax(1)
    assert result.confusion.tolist() == confusion_matrix(labels, predicted).tolist()
    assert result.top1 == accuracy_score(labels, predicted)
    assert result.top5 == top_k_accuracy_score(labels, scores, k=5)
    assert result.per_class == recall_score(labels, predicted, average=None).tolist()
    assert abs(result.loss - log_loss(labels, scores)) < 1e-6
    assert result.images == 90


def test_the_calibration_error_of_a_network_that_is_always_three_quarters_sure():
    """Right 60 times in 100, sure to 0.75: it is 0.15 too sure of itself."""
    scores = torch.tensor([[3.0, 1.0]]).log().expand(100, 2)
    labels = torch.tensor([0] * 60 + [1] * 40)
    result = evaluate(lambda images: images, [(scores, labels)], ALONE, num_classes=2, stop=lambda: None)
    assert abs(result.calibration_error - 0.15) < 1e-6
    assert "val/top5" not in result.metrics("val"), "five of two classes say nothing"


def test_it_leaves_off_when_asked():
    batch = (torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))
    assert evaluate(nn.Identity(), [batch], ALONE, num_classes=2, stop=lambda: "cancel") is None
