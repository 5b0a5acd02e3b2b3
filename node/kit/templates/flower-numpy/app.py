"""A Flower ClientApp with numpy alone, as under Flower itself: a logistic regression on two numbers a study.

Nothing in here knows of Cloister's contract; the data come from the loader, which is an ordinary package.
"""

import numpy as np
from cloister_job.dataset import Dataset
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def load_data() -> tuple[np.ndarray, np.ndarray]:
    """Features (studies, 2) and labels (studies,): how far the brightest and the darkest voxel stand out."""
    data = Dataset()
    labels = data.column("lesion")
    studies = [study for study in data.studies if labels.get(study.id) is not None]
    features = []
    for study in studies:
        volume = data.volume(study)
        spread = volume.std() + 1e-6
        features.append([(volume.max() - volume.mean()) / spread - 4, (volume.mean() - volume.min()) / spread - 4])
    return np.array(features), np.array([float(labels[study.id]) for study in studies])


def predict(parameters: list[np.ndarray], features: np.ndarray) -> np.ndarray:
    weights, bias = parameters
    return 1 / (1 + np.exp(-(features @ weights + bias[0])))


def log_loss(chance: np.ndarray, labels: np.ndarray) -> float:
    chance = np.clip(chance, 1e-6, 1 - 1e-6)
    return float(-(labels * np.log(chance) + (1 - labels) * np.log(1 - chance)).mean())


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Train the model on local data."""
    weights, bias = [array.astype(np.float64) for array in msg.content["arrays"].to_numpy_ndarrays()]
    features, labels = load_data()
    config = msg.content["config"]
    for _ in range(int(config["steps"])):
        error = predict([weights, bias], features) - labels
        weights = weights - float(config["lr"]) * features.T @ error / len(labels)
        bias = bias - float(config["lr"]) * error.mean()

    arrays = ArrayRecord([weights.astype(np.float32), bias.astype(np.float32)])
    metrics = MetricRecord({"loss": log_loss(predict([weights, bias], features), labels), "num-examples": len(labels)})
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Evaluate the model on local data."""
    features, labels = load_data()
    chance = predict(msg.content["arrays"].to_numpy_ndarrays(), features)
    accuracy = float(((chance > 0.5) == (labels > 0.5)).mean())
    metrics = MetricRecord({"loss": log_loss(chance, labels), "accuracy": accuracy, "num-examples": len(labels)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)
