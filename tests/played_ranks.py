"""Ranks that hold one network together, played by threads of one process, of which one computes at
a time.
"""

import threading
from queue import SimpleQueue

import numpy as np


class Stage:
    """What the ranks of one exchange share: a place for what each hands over, and barriers.

    turn: held by the thread that computes, since kernels are not made for several threads.
    """

    def __init__(self, ranks, turn):
        self.ranks, self.turn = ranks, turn
        self.given, self.barrier = [None] * ranks, threading.Barrier(ranks, timeout=60)

    def swapped(self, rank, given):
        """Return what all ranks hand over."""
        self.given[rank] = given
        self._meet()
        found = list(self.given)
        self._meet()
        return found

    def _meet(self):
        self.turn.release()
        try:
            self.barrier.wait()
        finally:
            self.turn.acquire()


class PlayedExchange:
    """An exchange (nn.split.exchange.Exchange) with the other threads of a stage. sent: the
    numbers that this rank has handed over for others.
    """

    def __init__(self, stage, rank):
        self.stage, self.rank, self.ranks = stage, rank, stage.ranks
        self.sent, self._groups = 0, {}

    def of_groups(self, groups):
        if groups == 1:
            return self
        size = self.ranks // groups
        stages = [Stage(size, self.stage.turn) for _ in range(groups)]
        stages = self.stage.swapped(self.rank, stages)[0]
        return PlayedExchange(stages[self.rank // size], self.rank % size)

    def gather(self, own, parts):
        parts[:] = self.stage.swapped(self.rank, own.copy())
        self.sent += own.size * (self.ranks - 1)

    def scatter(self, parts, own):
        own[:] = sum(each[self.rank] for each in self.stage.swapped(self.rank, parts.copy()))
        self.sent += own.size * (self.ranks - 1)

    def sum(self, values):
        values[:] = sum(self.stage.swapped(self.rank, values.copy()))
        self.sent += values.size

    def swap(self, low, high, before, after):
        given = self.stage.swapped(self.rank, (low.copy(), high.copy()))
        if self.rank:
            before[:] = given[self.rank - 1][1]
        if self.rank + 1 < self.ranks:
            after[:] = given[self.rank + 1][0]


def play(ranks, function):
    """Return function(exchange) of every rank."""
    turn, found, errors = threading.Lock(), [None] * ranks, []
    stage = Stage(ranks, turn)

    def act(rank):
        with turn:
            try:
                found[rank] = function(PlayedExchange(stage, rank))
            except BaseException as error:
                errors.append(error)
                stage.barrier.abort()

    threads = [threading.Thread(target=act, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next(
            (e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0]
        )
    return found


def joined(networks, vectors):
    """Return the vector of the whole network that those of all ranks are."""
    cuts = networks[0].parts.parameters
    if len(vectors[0]) != len(networks[0].parameters):
        cuts = networks[0].parts.statistics
    return cuts.joined(np.stack(vectors))


class PlayedLinks:
    """Links (nn.split.exchange.Links) with the other threads of a stage. sent: the bytes that this
    rank has handed over.
    """

    def __init__(self, stage, rank, ways):
        self.stage, self.rank, self.ranks = stage, rank, stage.ranks
        self.ways, self.sent = ways, 0

    def send(self, values, stage):
        self.ways[self.rank, stage].put(values.copy())
        self.sent += values.nbytes

    def receive(self, out, stage):
        self.stage.turn.release()
        try:
            values = self.ways[stage, self.rank].get(timeout=60)
        finally:
            self.stage.turn.acquire()
        assert values.shape == out.shape and values.dtype == out.dtype
        out[...] = values

    def look(self):
        pass

    def finish(self):
        pass

    def from_last(self, values):
        values[...] = self.stage.swapped(self.rank, values.copy())[-1]


def play_stages(ranks, function):
    """Return function(links) of every rank."""
    ways = {(a, b): SimpleQueue() for a in range(ranks) for b in range(ranks)}
    return play(ranks, lambda each: function(PlayedLinks(each.stage, each.rank, ways)))
