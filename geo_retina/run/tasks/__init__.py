"""Task batches on Dask: sent off and collected, a bounded number in flight, and counted."""
