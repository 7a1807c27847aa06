"""A whole run once more, as a plain PyTorch loop in float64: what a job says of batches, rates,
averages, best epochs and ends.
"""

import copy
import math
from fractions import Fraction

import numpy as np
import torch
import torch_layers
import torch_networks

from ensync.core.sharding import epoch_order
from ensync.nn.flat import views

ESTIMATED = 2048
torch.set_num_threads(1)


class Run:
    """One network on rows of a training split, trained to its end by `train`.

    network: Ensync's, for its layout; together: rows that statistics of an average are estimated
    from at once.
    """

    def __init__(self, job, network, start, splits, rows, member, together):
        self.job, self.network, self.splits, self.rows, self.member, self.together = (
            job,
            network,
            splits,
            rows,
            member,
            together,
        )
        layers = job.model_dump(mode="json", exclude_none=True)["network"]["layers"]
        self.replica, _ = torch_layers.listed(
            layers,
            torch.zeros(2, network.shape[2], *network.shape[:2], dtype=torch.float64),
            network.classes,
        )
        self.fill(start)
        self.average, self.best = None, None
        self.lowest, self.best_epoch, self.reduced = math.inf, 0, 1.0
        self.plateau, self.waited, self.steps = math.inf, 0, 0
        self.history, self.ended, self.diverged = [], "", False

    def fill(self, vectors):
        for tensor, ours in zip(
            self.replica.parameters(),
            views(vectors["parameters"], self.network.layout).values(),
            strict=True,
        ):
            torch_networks.set_from(tensor, ours)
        for buffer, ours in zip(
            self.buffers(self.replica),
            views(vectors["statistics"], self.network.statistics_layout).values(),
            strict=True,
        ):
            buffer.copy_(torch.from_numpy(ours.copy()))

    @staticmethod
    def buffers(replica):
        return [
            buffer
            for norm in replica.modules()
            if isinstance(norm, torch_layers.Norm)
            for buffer in (norm.mean, norm.variance)
        ]

    def vectors(self, replica):
        """Return flat parameters and statistics as Ensync lays them out."""
        shapes = [
            view.shape for view in views(self.network.parameters, self.network.layout).values()
        ]
        parameters = [
            torch_networks.as_ours(tensor, shape).ravel()
            for tensor, shape in zip(replica.parameters(), shapes, strict=True)
        ]
        return {
            "parameters": np.concatenate(parameters),
            "statistics": np.concatenate(
                [np.empty(0), *(b.numpy().ravel() for b in self.buffers(replica))]
            ),
        }

    def outputs(self, replica, split, rows):
        """Return outputs, per-sample losses and how many are right."""
        images, labels = self.splits[split]
        inputs = torch.from_numpy(
            images[rows].reshape(len(rows), *self.network.shape).transpose(0, 3, 1, 2).copy()
        )
        outputs, labels, t = replica(inputs), torch.from_numpy(labels[rows]), self.job.training
        if t.loss == "cross_entropy":
            losses = torch.nn.functional.cross_entropy(
                outputs, labels, label_smoothing=t.label_smoothing, reduction="none"
            )
        else:
            targets = torch.full_like(outputs, t.targets[0])
            targets[torch.arange(len(labels)), labels] = t.targets[1]
            losses = (outputs - targets).square().sum(1) / (
                outputs.shape[1] if t.loss == "mean_squared_error" else 2
            )
        return outputs, losses, int((outputs.argmax(1) == labels).sum())

    def train(self):
        t, o = self.job.training, self.job.optimizer
        parameters = list(self.replica.parameters())
        if o.name in ("sgd", "momentum", "nesterov"):
            optimizer = torch.optim.SGD(
                parameters,
                lr=1,
                momentum=0 if o.name == "sgd" else o.momentum,
                nesterov=o.name == "nesterov",
                weight_decay=o.weight_decay,
            )
        elif o.preset == "keras":
            optimizer = KerasAdam(parameters, o)
        else:
            kind = torch.optim.Adam if o.name == "adam" else torch.optim.AdamW
            optimizer = kind(
                parameters,
                lr=1,
                betas=(o.beta1, o.beta2),
                eps=o.epsilon or 1e-8,
                weight_decay=o.weight_decay,
            )
        for epoch in range(t.epochs):
            self.epoch(epoch, optimizer)
            if self.ended or self.diverged:
                return self
        self.ended = f"all {t.epochs} epoch{'s' * (t.epochs > 1)}"
        return self

    def grown(self, epoch):
        """Return batch and factor of the rate."""
        t, g = self.job.training, self.job.growth
        batch, factor = len(self.rows) if t.batch == "full" else t.batch, 1.0
        for _ in range(epoch // g.every_epochs if g.every_epochs and t.batch != "full" else 0):
            if batch * g.batch <= g.largest_batch:
                batch, factor = batch * g.batch, factor * g.learning_rate
        return min(batch, len(self.rows)), factor

    def rate(self, passed, step):
        """Return the schedule's factor after `passed` epochs, a Fraction as the length `step` of
        a step.
        """
        s, epochs = self.job.schedule, self.job.training.epochs
        warmup = Fraction(str(s.warmup_epochs))
        if passed < warmup:
            return float(min(Fraction(1), (passed + step) / warmup))
        if s.name == "step":
            return s.factor ** math.floor(passed / Fraction(str(s.step_epochs)))
        if s.name == "multi_step":
            return s.factor ** sum(passed >= Fraction(str(each)) for each in s.milestones)
        if s.name == "cosine":
            done = float(min(Fraction(1), (passed - warmup) / max(step, epochs - warmup)))
            return s.minimum + (1 - s.minimum) * 0.5 * (1 + math.cos(math.pi * done))
        return 1.0

    def epoch(self, epoch, optimizer):
        t = self.job.training
        order = self.rows[epoch_order(len(self.rows), t.seed, epoch, None, self.member)]
        batch, grown = self.grown(epoch)
        spans = [order[first : first + batch] for first in range(0, len(order), batch)]
        loss, right = 0.0, 0
        for number, rows in enumerate(spans):
            optimizer.zero_grad()
            self.replica.train()
            for first in range(0, len(rows), t.slice):
                _, losses, hits = self.outputs(self.replica, "train", rows[first : first + t.slice])
                (losses.sum() / len(rows)).backward()
                loss, right = loss + losses.sum().item(), right + hits
            if self.job.optimizer.clip_norm:
                torch.nn.utils.clip_grad_norm_(
                    self.replica.parameters(), self.job.optimizer.clip_norm
                )
            factor = (
                self.rate(epoch + Fraction(number, len(spans)), Fraction(1, len(spans)))
                * grown
                * self.reduced
            )
            for group in optimizer.param_groups:
                group["lr"] = self.job.optimizer.learning_rate * factor
            optimizer.step()
            self.steps += 1
            self.follow()
        self.diverged = not math.isfinite(loss)
        if self.diverged:
            return
        self.history.append(
            {
                "epoch": epoch + 1,
                "step": self.steps,
                "train_loss": loss / len(order),
                "train_accuracy": right / len(order),
            }
        )
        self.validate(epoch + 1)

    def follow(self):
        decay = self.job.training.weight_average
        if not decay:
            return
        if self.average is None:
            self.average = copy.deepcopy(self.replica)
        for mean, value in zip(self.average.parameters(), self.replica.parameters(), strict=True):
            mean.data = (
                value.data.clone()
                if self.steps == 1
                else decay * mean.data + (1 - decay) * value.data
            )

    @torch.no_grad()
    def settle(self):
        """torch.optim.swa_utils.update_bn, each batch by its rows."""
        norms = [norm for norm in self.average.modules() if isinstance(norm, torch_layers.Norm)]
        kept, rows, done = [norm.share for norm in norms], self.rows[:ESTIMATED], 0
        self.average.train()
        for first in range(0, len(rows), self.together):
            part = rows[first : first + self.together]
            done += len(part)
            for norm in norms:
                norm.share = len(part) / done
            self.outputs(self.average, "train", part)
        for norm, share in zip(norms, kept, strict=True):
            norm.share = share

    @torch.no_grad()
    def validate(self, epoch):
        t, p = self.job.training, self.job.plateau
        if self.average is not None:
            self.settle()
        judged = (self.average or self.replica).eval()
        rows = np.arange(len(self.splits["validation"][1]))
        _, losses, right = self.outputs(judged, "validation", rows)
        loss = losses.mean().item()
        self.diverged = not math.isfinite(loss)
        self.history[-1] |= {"validation_loss": loss, "validation_accuracy": right / len(rows)}
        self.waited += 1
        if loss < self.plateau - p.threshold:
            self.plateau, self.waited = loss, 0
        elif p.patience and self.waited >= p.patience:
            self.reduced, self.waited = (
                max(
                    min(1.0, p.minimum / self.job.optimizer.learning_rate), self.reduced * p.factor
                ),
                0,
            )
        if loss < self.lowest:
            self.lowest, self.best_epoch = loss, epoch
            if t.best_weights:
                self.best = copy.deepcopy(judged)
        elif t.early_stopping and epoch - self.best_epoch >= t.early_stopping:
            self.ended = (
                f"early stopping at epoch {epoch} of {t.epochs}: no better validation "
                f"loss since epoch {self.best_epoch}"
            )

    @property
    def tested(self):
        return self.best or self.average or self.replica

    @torch.no_grad()
    def scores(self):
        """Return the scores of the test split."""
        outputs, _, _ = self.outputs(
            self.tested.eval(), "test", np.arange(len(self.splits["test"][1]))
        )
        return (
            outputs.softmax(1) if self.job.training.loss == "cross_entropy" else outputs
        ).numpy()


class KerasAdam:
    """Keras' update: alpha = rate sqrt(1 - b2^t) / (1 - b1^t), p -= alpha m / (sqrt(v) +
    epsilon); of AdamW, p -= rate decay p before.
    """

    def __init__(self, parameters, settings):
        self.parameters, self.settings, self.t = parameters, settings, 0
        self.param_groups = [{"lr": 0.0}]
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]

    def zero_grad(self):
        for p in self.parameters:
            p.grad = None

    @torch.no_grad()
    def step(self):
        s, rate = self.settings, self.param_groups[0]["lr"]
        self.t += 1
        for p, (m, v) in zip(self.parameters, self.moments, strict=True):
            g = p.grad
            if s.name == "adamw":
                p.mul_(1 - rate * s.weight_decay)
            else:
                g = g + s.weight_decay * p
            m.mul_(s.beta1).add_((1 - s.beta1) * g)
            v.mul_(s.beta2).add_((1 - s.beta2) * g * g)
            p.sub_(
                rate
                * math.sqrt(1 - s.beta2**self.t)
                / (1 - s.beta1**self.t)
                * m
                / (v.sqrt() + (s.epsilon or 1e-7))
            )
