"""Train the head for masked words of a warm start whose source had none, with a frozen encoder.

    python examples/recipes/bert_debian/head.py data-bin/text --path warm.pt --output start.pt --updates 400

A random head would send its gradients through the encoder and make it worse before the head becomes useful. Features
come from the largest subnet; the table of words stays unchanged.
"""

from __future__ import annotations

import argparse
import logging
import math

logging.disable(logging.INFO)  # fairseq sets the root logger to debug when it is imported

import torch  # noqa: E402
from fairseq import checkpoint_utils  # noqa: E402

import mos_fairseq  # noqa: E402, F401  makes checkpoints readable
from mos_fairseq.checkpoints import read_supernet, save_checkpoint  # noqa: E402
from mos_fairseq.masked import masked_only  # noqa: E402


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--path", required=True, metavar="CKPT", help="of mos-warm-start")
    parser.add_argument("--output", required=True, metavar="CKPT")
    parser.add_argument("--updates", required=True, type=int, metavar="N")
    parser.add_argument("--max-tokens", type=int, default=2048, metavar="N", help="of a batch (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=2e-3, help="falls to 0 in a line (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of batches and masks (default: %(default)s)")
    args = parser.parse_args(argv)
    overrides = {"data": args.data, "sample_break_mode": "eos", "seed": args.seed}
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([args.path], arg_overrides=overrides)
    task.load_dataset("train")
    model.eval()
    encoder, padding = model.encoder, task.source_dictionary.pad()
    model.requires_grad_(False)
    head = encoder.lm_head.requires_grad_(True)
    optimizer = torch.optim.Adam(head.parameters(), lr=args.lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: 1 - update / args.updates)
    batches = task.get_batch_iterator(task.dataset("train"), args.max_tokens, seed=args.seed)
    update = epoch = 0
    while update < args.updates:
        epoch += 1
        for batch in batches.next_epoch_itr(shuffle=True):
            if update == args.updates:
                break
            sample = masked_only(batch, padding)
            with torch.no_grad():
                features = model(**batch["net_input"], features_only=True)[0][sample["net_input"]["masked_tokens"]]
            loss = torch.nn.functional.cross_entropy(encoder.output_layer(features), sample["target"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            update += 1
            if update % 50 == 0:
                print(f"update {update}: {float(loss.detach()) / math.log(2):.3f} bits a masked token", flush=True)
    state = read_supernet(args.path)
    state["model"] = model.state_dict()
    save_checkpoint(state, args.output)


if __name__ == "__main__":
    main()
