"""Models of runs that layers hand to each other: requests, stored runs and statuses.  Pure data."""
