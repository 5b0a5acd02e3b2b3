"""The model and the data of app.py."""

import torch
from cloister_job.dataset import Dataset as Studies
from torch import nn
from torch.utils.data import DataLoader, Dataset

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Net(nn.Module):
    """(studies, slices, rows, columns) float32 -> (studies,) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 6, 5)
        self.head = nn.Linear(6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        studies, slices, rows, columns = x.shape
        x = nn.functional.avg_pool2d(x.reshape(studies * slices, 1, rows, columns), 2)
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.head(x.amax((2, 3)).reshape(studies, slices, -1).amax(1)).squeeze(1)


class Labelled(Dataset):
    """One study an item: ((slices, rows, columns) float32 of mean 0 and deviation 1, label 0 or 1)."""

    def __init__(self) -> None:
        self.data = Studies()
        self.labels = self.data.column("lesion")
        self.studies = [study for study in self.data.studies if self.labels.get(study.id) is not None]

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, index: int):
        volume = torch.from_numpy(self.data.volume(self.studies[index]))
        label = torch.tensor(float(self.labels[self.studies[index].id]))
        return (volume - volume.mean()) / (volume.std() + 1e-6), label


def load_data(batch_size: int, shuffle: bool) -> DataLoader:
    return DataLoader(Labelled(), batch_size=batch_size, shuffle=shuffle)


def train(net: Net, loader: DataLoader, epochs: int, lr: float) -> float:
    criterion = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    net.train()
    running = 0.0
    for _ in range(epochs):
        running = 0.0
        for volumes, labels in loader:
            optimizer.zero_grad()
            loss = criterion(net(volumes.to(DEVICE)), labels.to(DEVICE))
            loss.backward()
            optimizer.step()
            running += loss.item()
    return running / len(loader)


def test(net: Net, loader: DataLoader) -> tuple[float, float]:
    criterion, loss, right = nn.BCEWithLogitsLoss(), 0.0, 0
    net.eval()
    for volumes, labels in loader:
        volumes, labels = volumes.to(DEVICE), labels.to(DEVICE)
        logits = net(volumes)
        loss += criterion(logits, labels).item()
        right += int(((logits > 0) == (labels > 0.5)).sum())
    return loss / len(loader), right / len(loader.dataset)
