"""Environment variables that decide how a run behaves on Ascend: what is good, and why.

Sources: environment variable reference of Ascend/pytorch (docs/en/api/environment_variable) and of
CANN 8.5 (HCCL).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One variable.

    Args:
        name: of the variable.
        default: what holds where it is not set.
        accepts: pattern that covers every value that needs no remark; empty takes any.
        advice: what to type instead.
        reason: why.
        is_wanted: whether leaving it unset deserves a remark.
    """

    name: str
    default: str
    accepts: str = ""
    advice: str
    reason: str
    is_wanted: bool = False


VARIABLES = (
    Variable(
        name="PYTORCH_NPU_ALLOC_CONF",
        default="expandable_segments:False",
        accepts=r".*expandable_segments:true.*",
        advice="export PYTORCH_NPU_ALLOC_CONF=expandable_segments:True",
        reason="segments that grow leave less memory in pieces",
        is_wanted=True,
    ),
    Variable(
        name="TASK_QUEUE_ENABLE",
        default="1",
        accepts="[12]",
        advice="export TASK_QUEUE_ENABLE=2",
        reason="2 hides most of the host's work and raises the memory peak; 0 hides nothing",
    ),
    Variable(
        name="CPU_AFFINITY_CONF",
        default="0",
        accepts=r"[12](,.*)?",
        advice="export CPU_AFFINITY_CONF=2",
        reason="processes bound to cores do not push each other off; in a container add ,force:1",
        is_wanted=True,
    ),
    Variable(
        name="HCCL_CONNECT_TIMEOUT",
        default="120",
        accepts=r"[3-9]\d\d|\d{4,}",
        advice="export HCCL_CONNECT_TIMEOUT=600",
        reason="ranks that read large weights meet more than two minutes apart",
        is_wanted=True,
    ),
    Variable(
        name="HCCL_EXEC_TIMEOUT",
        default="1836",
        accepts=r"\d+",
        advice="unset HCCL_EXEC_TIMEOUT",
        reason="seconds a collective may take; parallel.timeout_seconds must be larger to say more",
    ),
    Variable(
        name="HCCL_EVENT_TIMEOUT",
        default="1868",
        accepts=r"\d+",
        advice="export HCCL_EVENT_TIMEOUT=1868",
        reason="must be above HCCL_EXEC_TIMEOUT, or 0",
    ),
    Variable(
        name="HCCL_BUFFSIZE",
        default="200",
        accepts=r"\d{1,3}",
        advice="unset HCCL_BUFFSIZE",
        reason="MB, twice per group of ranks: every dimension of the mesh takes it from the device",
    ),
    Variable(
        name="P2P_HCCL_BUFFSIZE",
        default="20",
        accepts=r"\d{1,3}",
        advice="unset P2P_HCCL_BUFFSIZE",
        reason="MB, twice per pair of ranks that send to each other",
    ),
    Variable(
        name="HCCL_ASYNC_ERROR_HANDLING",
        default="1",
        accepts="1",
        advice="unset HCCL_ASYNC_ERROR_HANDLING",
        reason="with 0 a link that fails leaves every rank waiting",
    ),
    Variable(
        name="HCCL_DETERMINISTIC",
        default="false",
        advice="export HCCL_DETERMINISTIC=true for runs that must repeat to the last bit",
        reason="sums over ranks in one order; slower",
    ),
    Variable(
        name="HCCL_SOCKET_IFNAME",
        default="chosen by HCCL",
        advice="export HCCL_SOCKET_IFNAME=NAME_OF_THE_INTERFACE",
        reason="the interface over which hosts meet",
    ),
    Variable(
        name="GLOO_SOCKET_IFNAME",
        default="that of the host's name",
        advice="export GLOO_SOCKET_IFNAME=NAME_OF_THE_INTERFACE",
        reason="the interface over which host numbers are summed",
    ),
    Variable(
        name="ASCEND_RT_VISIBLE_DEVICES",
        default="all",
        accepts=r"\d+(,\d+)*",
        advice="export ASCEND_RT_VISIBLE_DEVICES=0,1,2,3",
        reason="numbers of the NPUs this process may use",
    ),
    Variable(
        name="ASCEND_LAUNCH_BLOCKING",
        default="0",
        accepts="0",
        advice="unset ASCEND_LAUNCH_BLOCKING",
        reason="1 waits for every kernel: right for a stack trace, slow for a run",
    ),
    Variable(
        name="ASCEND_GLOBAL_LOG_LEVEL",
        default="3",
        accepts="[234]",
        advice="export ASCEND_GLOBAL_LOG_LEVEL=3",
        reason="0 and 1 write so much that runs become slow and disks full",
    ),
    Variable(
        name="ASCEND_SLOG_PRINT_TO_STDOUT",
        default="0",
        accepts="0",
        advice="unset ASCEND_SLOG_PRINT_TO_STDOUT",
        reason="1 mixes CANN's log into what a run prints",
    ),
    Variable(
        name="COMBINED_ENABLE",
        default="0",
        accepts="[01]",
        advice="export COMBINED_ENABLE=1",
        reason="joins pairs of operations on tensors that are not contiguous",
    ),
    Variable(
        name="MULTI_STREAM_MEMORY_REUSE",
        default="1, from torch_npu 2.13 on 2",
        accepts="[123]",
        advice="unset MULTI_STREAM_MEMORY_REUSE",
        reason="with 0 what a collective has used is freed late, and the memory peak rises",
    ),
    Variable(
        name="TORCH_NPU_FALLBACK_CPU_DISABLE",
        default="0",
        accepts="[01]",
        advice="export TORCH_NPU_FALLBACK_CPU_DISABLE=1 in tests",
        reason="1 refuses operations without a kernel instead of computing them on the host",
    ),
    Variable(
        name="INF_NAN_MODE_ENABLE",
        default="1",
        accepts="1",
        advice="unset INF_NAN_MODE_ENABLE",
        reason="with 0 an overflow becomes the largest number, and no guard sees it",
    ),
    Variable(
        name="INF_NAN_MODE_FORCE_DISABLE",
        default="0",
        accepts="0",
        advice="unset INF_NAN_MODE_FORCE_DISABLE",
        reason="1 makes INF_NAN_MODE_ENABLE=0 take effect",
    ),
    Variable(
        name="TORCH_TRANSFER_TO_NPU",
        default="0",
        accepts="0",
        advice="unset TORCH_TRANSFER_TO_NPU",
        reason="1 replaces functions of torch at import; this package needs none replaced",
    ),
    Variable(
        name="ACL_DEVICE_SYNC_TIMEOUT",
        default="no limit",
        accepts=r"\d+",
        advice="export ACL_DEVICE_SYNC_TIMEOUT=600",
        reason="seconds after which a device that does not answer is an error",
    ),
    Variable(
        name="ACLNN_CACHE_LIMIT",
        default="10000",
        accepts=r"\d+",
        advice="export ACLNN_CACHE_LIMIT=100000",
        reason="shapes for which a prepared operation is kept; many lengths need many",
    ),
)
