"""The evidence of a target, together with the events that were emitted meanwhile."""

from chainbench_agent.catalog.selection import EVERYTHING


def heard(collector):
    events = []
    while found := collector.ring.poll(200):
        events += found
    return events


class Said:
    """A target that has run: its process, the evidence, and the events that were emitted and held back meanwhile."""

    def __init__(self, collector, one, selection=EVERYTHING):
        one.collector = collector
        before = collector.ring.dropped()
        collector.ring.listen(on=True)
        self.evidence = one.run(selection=selection)
        self.all = heard(collector)
        self.held_back, self.without_room = (n - before[cause] for cause, n in collector.ring.dropped().items())
        self.pid, self.output = one.process.pid, one.output

    def of(self, name):
        return [event for event in self.all if event.name == name]
