#!/usr/bin/env bash
# Pre-train SEED-X (Llama 2 13B + Qwen-VL ViT-G) on the data of configs/dataset/pretrain_data.yaml.
#   bash scripts/seed-x_llama2_13b_qwen_vit_pretrain.sh [Hydra overrides]
# NPROC is the number of accelerators of this machine; more machines: NNODES, NODE_RANK, MASTER_ADDR.
set -euo pipefail
[ -f /usr/local/Ascend/ascend-toolkit/set_env.sh ] && source /usr/local/Ascend/ascend-toolkit/set_env.sh

torchrun --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" --nproc-per-node "${NPROC:-8}" \
    --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${MASTER_PORT:-29500}" \
    -m mllm_npu.cli train experiment=seedx/pretrain "$@"
