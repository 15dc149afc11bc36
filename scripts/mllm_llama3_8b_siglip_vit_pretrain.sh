#!/usr/bin/env bash
# Pre-train Llama 3 8B + SigLIP on the data of configs/dataset/pretrain_data.yaml.
#   bash scripts/mllm_llama3_8b_siglip_vit_pretrain.sh [Hydra overrides]
# NPROC is the number of accelerators of this machine; more machines: NNODES, NODE_RANK, MASTER_ADDR.
set -euo pipefail
[ -f /usr/local/Ascend/ascend-toolkit/set_env.sh ] && source /usr/local/Ascend/ascend-toolkit/set_env.sh

torchrun --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" --nproc-per-node "${NPROC:-8}" \
    --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${MASTER_PORT:-29500}" \
    -m mllm_npu.cli train experiment=mllm_llama3_8b_siglip_vit/pretrain "$@"
