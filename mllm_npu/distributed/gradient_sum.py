"""Sum gradients over ranks as they become ready, for DistributedDataParallel.

Its annotations are looked at when it is registered, so they must not be texts.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def sum_bucket(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """Add up a bucket; not its mean, since a loss is a share of the whole step's."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])
