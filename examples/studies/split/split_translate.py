#!/usr/bin/env python3
"""Split computing over a real connection: one process encodes, another decodes.

    split_translate.py server MODEL PORT [--beam N]                      on the server: holds the decoder, answers
    split_translate.py device MODEL PORT DATA [--host H] [--dtype D]     on the device: encodes the test set of DATA
    split_translate.py both MODEL DATA [--dtype D]                       both here, over a connection of this machine

MODEL is an exported subnet (mos-export --format twin). What crosses the connection are the encoder's outputs, in the
message of mos_fairseq.transfer, once a batch, and the hypotheses as they come back; the device prints them as
fairseq-generate does, and at the end how many bytes it sent and how many transfer_bytes foretells. The server
answers one device, on 127.0.0.1 unless --host names another address: there is no encryption and no password.
"""

from __future__ import annotations

import argparse
import json
import logging
import socket
import subprocess
import sys
from typing import Any

import torch

logging.disable(logging.INFO)  # fairseq sets the root logger to debug when it is imported

from fairseq import checkpoint_utils  # noqa: E402
from fairseq.sequence_generator import SequenceGenerator  # noqa: E402

from mos_fairseq import plugin  # noqa: E402, F401
from mos_fairseq.search_space import Subnet  # noqa: E402
from mos_fairseq.transfer import HEADER_BYTES, message_bytes, pack, transfer_bytes, unpack  # noqa: E402


def load(path: str, data: str | None = None) -> tuple[Any, Any]:
    """(model, task)."""
    overrides = {} if data is None else {"data": data}
    models, _, task = checkpoint_utils.load_model_ensemble_and_task([path], arg_overrides=overrides)
    return models[0].eval(), task


def receive(connection: socket.socket, number: int) -> bytes:
    """Exactly so many bytes; fewer where the other side has ended."""
    found = bytearray()
    while len(found) < number and (part := connection.recv(min(1 << 20, number - len(found)))):
        found += part
    return bytes(found)


class Decoding:
    """Beam search over encoder outputs that came from elsewhere: the encoder here is never run."""

    def __init__(self, model: Any, task: Any, beam: int) -> None:
        self.encoder_out: dict[str, list[torch.Tensor]] = {}
        model.encoder.forward_torchscript = lambda net_input: self.encoder_out
        self.search = SequenceGenerator([model], task.target_dictionary, beam_size=beam, max_len_a=1.2, max_len_b=10)
        self.model, self.pad = model, task.target_dictionary.pad()

    @torch.inference_mode()
    def hypotheses(self, message: bytes) -> list[dict[str, Any]]:
        """The best of each sentence: ``tokens``, ``score``."""
        outputs, padding = unpack(message)
        tensors = [torch.from_numpy(output) for output in outputs]
        mask = [] if padding is None else [torch.from_numpy(padding)]
        empty: dict[str, list] = {"encoder_embedding": [], "encoder_states": [], "src_tokens": [], "src_lengths": []}
        self.encoder_out = {"encoder_out": tensors, "encoder_padding_mask": mask, "beam_size": [], **empty}
        # the search asks the source for its length only
        length, sentences, _ = outputs[0].shape
        tokens = torch.full((sentences, length), self.pad + 2)
        if padding is not None:
            tokens[mask[0]] = self.pad
        net_input = {"src_tokens": tokens, "src_lengths": tokens.ne(self.pad).sum(1)}
        found = self.search.generate([self.model], {"net_input": net_input})
        return [{"tokens": best[0]["tokens"].tolist(), "score": float(best[0]["score"])} for best in found]


def serve(args: argparse.Namespace) -> None:
    """Answer one device until it ends."""
    decoding = Decoding(*load(args.model), args.beam)
    with socket.create_server((args.host, args.port)) as server:
        print(f"listening on {server.getsockname()[1]}", flush=True)
        connection, _ = server.accept()
        with connection:
            while len(header := receive(connection, HEADER_BYTES)) == HEADER_BYTES:
                message = header + receive(connection, message_bytes(header) - HEADER_BYTES)
                connection.sendall(json.dumps(decoding.hypotheses(message)).encode() + b"\n")


@torch.inference_mode()
def translate(args: argparse.Namespace) -> None:
    """Encode the set, send, print what comes back."""
    model, task = load(args.model, args.data)
    subnet = Subnet.from_text(model.cfg.subnet)
    task.load_dataset(args.gen_subset)
    words, foretold, sent, found = task.target_dictionary, 0, 0, {}
    batches = task.get_batch_iterator(
        task.dataset(args.gen_subset), max_sentences=args.batch_size, required_batch_size_multiple=1
    ).next_epoch_itr(shuffle=False)
    with socket.create_connection((args.host, args.port)) as connection, connection.makefile("rb") as answers:
        for batch in batches:
            source = batch["net_input"]["src_tokens"]
            encoded = model.encoder(source, batch["net_input"]["src_lengths"])
            mask = encoded["encoder_padding_mask"]
            padding = mask[0].numpy() if mask else None
            message = pack([output.numpy() for output in encoded["encoder_out"]], padding, args.dtype)
            connection.sendall(message)
            sent += len(message)
            foretold += transfer_bytes(subnet, source.size(1), args.dtype, len(source), padding is not None)
            for index, best in zip(batch["id"].tolist(), json.loads(answers.readline()), strict=True):
                found[index] = best
    for index in sorted(found):
        text = words.string(torch.tensor(found[index]["tokens"]), args.remove_bpe)
        print(f"H-{index}\t{found[index]['score']:.4f}\t{text}")
    print(f"sent {sent} bytes of {args.dtype}, foretold {foretold}", file=sys.stderr)


def both(args: argparse.Namespace) -> None:
    """Start a server, translate with it, end it."""
    words = [sys.executable, __file__, "server", args.model, "0", "--beam", str(args.beam)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = next((line for line in server.stdout if line.startswith("listening on ")), "")
            if not line:
                sys.exit("error: the server did not start")
            args.port = int(line.split()[-1])
            translate(args)
        finally:
            server.terminate()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run in (("server", serve), ("device", translate), ("both", both)):
        command = commands.add_parser(name)
        command.set_defaults(run=run, host="127.0.0.1")
        command.add_argument("model")
        if name != "both":
            command.add_argument("port", type=int, help="0: any that is free (server)")
            command.add_argument("--host", default="127.0.0.1")
        if name != "device":
            command.add_argument("--beam", type=int, default=4)
        if name != "server":
            command.add_argument("data")
            command.add_argument("--dtype", choices=("float32", "float16", "int8"), default="float32")
            command.add_argument("--gen-subset", default="test")
            command.add_argument("--batch-size", type=int, default=1)
            command.add_argument("--remove-bpe", nargs="?", const="@@ ")
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
