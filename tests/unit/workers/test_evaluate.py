import torch
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss
from torch import nn

from workers.train.evaluate import evaluate
from workers.train.gang import Gang


def test_every_figure_is_scikit_learns():
    torch.manual_seed(0)
    network, images, labels = nn.Linear(6, 4).double(), torch.randn(50, 6).double(), torch.randint(0, 4, (50,))
    alone = Gang(0, 1, torch.device("cpu"))
    batches = [(images[:20], labels[:20]), (images[20:], labels[20:]), (images[:0], labels[:0])]
    result = evaluate(network, batches, alone, num_classes=4, stop=lambda: None)
    scores = network(images).detach().softmax(1)
    predicted = scores.argmax(1)
    assert result.confusion.tolist() == confusion_matrix(labels, predicted).tolist()
    assert result.top1 == accuracy_score(labels, predicted)
    assert abs(result.loss - log_loss(labels, scores)) < 1e-6
    assert result.images == 50
    assert network.training, "the network goes on as it was"


def test_it_leaves_off_when_asked():
    alone = Gang(0, 1, torch.device("cpu"))
    network = nn.Linear(2, 2)
    batch = (torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))
    assert evaluate(network, [batch], alone, num_classes=2, stop=lambda: "cancel") is None
    assert network.training
