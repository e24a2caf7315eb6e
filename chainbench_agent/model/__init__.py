"""What the layers hand to each other about runs: requests, stored runs and statuses.  Pure data."""
