#!/usr/bin/env python3
"""Runs a command and draws what it printed, line by line at the time at which it came.

    docs/img/record.py terminal.svg cargo run --release --example echo

Build first, so that the compiler is not in the picture. Viewers that do not animate show all lines.
"""

import html
import pathlib
import subprocess
import sys
import time

LINE, CHAR, MARGIN, BAR = 20, 8.4, 16, 34

HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" xml:space="preserve" viewBox="0 0 {width} {height}" role="img" aria-labelledby="title">
  <title id="title">{title}</title>
  <style>
    .back {{ fill: #f6f8fa; stroke: #d0d7de; }}
    .dot {{ fill: #d0d7de; }}
    text {{ font: 14px ui-monospace, "DejaVu Sans Mono", monospace; fill: #1f2328; white-space: pre; }}
    .typed {{ font-weight: 700; }}
    .line {{ animation: come 1ms linear backwards; }}
    @keyframes come {{ from {{ opacity: 0; }} to {{ opacity: 1; }} }}
    @media (prefers-reduced-motion: reduce) {{ .line {{ animation: none; }} }}
    @media (prefers-color-scheme: dark) {{
      .back {{ fill: #0d1117; stroke: #30363d; }}
      .dot {{ fill: #30363d; }}
      text {{ fill: #e6edf3; }}
    }}
  </style>
  <rect class="back" x="0.5" y="0.5" width="{inner_width}" height="{inner_height}" rx="10"/>
  <circle class="dot" cx="22" cy="18" r="6"/>
  <circle class="dot" cx="42" cy="18" r="6"/>
  <circle class="dot" cx="62" cy="18" r="6"/>
"""


def record(command):
    """The lines that the command prints, each with its time in seconds."""
    start = None
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        for line in child.stdout:
            start = start or time.monotonic()  # cargo's own time is not the program's
            lines.append((time.monotonic() - start, line.rstrip("\n")))
    if child.returncode != 0:
        sys.exit(f"{' '.join(command)}: status {child.returncode}")
    return lines


def draw(command, lines):
    typed = "$ " + " ".join(command)
    columns = max(len(line) for line in [typed, *(line for _, line in lines)])
    width = round(columns * CHAR) + 2 * MARGIN
    height = BAR + (len(lines) + 1) * LINE + MARGIN
    svg = HEAD.format(
        width=width, height=height, inner_width=width - 1, inner_height=height - 1, title=html.escape(typed)
    )
    svg += f'  <text class="typed" x="{MARGIN}" y="{BAR + LINE - 5}">{html.escape(typed)}</text>\n'
    for number, (at, line) in enumerate(lines, 2):
        y = BAR + number * LINE - 5
        text = html.escape(line)
        svg += f'  <text class="line" x="{MARGIN}" y="{y}" style="animation-delay: {at:.1f}s">{text}</text>\n'
    return svg + "</svg>\n"


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    out = pathlib.Path(__file__).parent / sys.argv[1]
    out.write_text(draw(sys.argv[2:], record(sys.argv[2:])))
