"""A Flower ClientApp with torch, as it would run under Flower itself: nothing in here knows of Cloister."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from task import DEVICE, Net, load_data
from task import test as test_fn
from task import train as train_fn

app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Train the model on local data."""
    model = Net().to(DEVICE)
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    config = msg.content["config"]
    loader = load_data(batch_size=int(config["batch-size"]), shuffle=True)
    loss = train_fn(model, loader, epochs=int(config["local-epochs"]), lr=float(config["lr"]))

    arrays = ArrayRecord(model.state_dict())
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(loader.dataset)})
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Evaluate the model on local data."""
    model = Net().to(DEVICE)
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    loader = load_data(batch_size=8, shuffle=False)
    with torch.no_grad():
        loss, accuracy = test_fn(model, loader)

    metrics = MetricRecord({"eval_loss": loss, "eval_acc": accuracy, "num-examples": len(loader.dataset)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)
