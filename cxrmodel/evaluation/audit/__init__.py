"""What could make the scores of a run look better than they are, and for whom they are worse."""
