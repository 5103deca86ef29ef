"""The look of the page: light and dark, wide and narrow. Colours are told apart by dashes too (c2, c3)."""

CSS = """
:root { color-scheme: light dark; --paper: #fcfcfa; --card: #fff; --ink: #1d1d1b; --soft: #62625d; --rule: #dedcd5;
  --c1: #1f66c7; --c2: #b8560b; --c3: #1b7a4b; --good: #1b7a4b; --bad: #b3372b; }
@media (prefers-color-scheme: dark) { :root { --paper: #161614; --card: #1f1f1c; --ink: #ecebe6; --soft: #a3a29b;
  --rule: #3a3934; --c1: #74abff; --c2: #f0a05a; --c3: #62c892; --good: #62c892; --bad: #f08578; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .75rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; font-weight: 500; overflow-wrap: anywhere; }
dl { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 0 0 1rem; }
dt, small, .legend, th[scope=col] { color: var(--soft); font-size: .82rem; font-weight: 400; }
dd { margin: 0; overflow-wrap: anywhere; }
code, pre { font: .85rem/1.5 ui-monospace, Menlo, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
code { display: block; color: var(--soft); }
pre { margin: .5rem 0 0; padding: .75rem; background: var(--paper); border: 1px solid var(--rule); border-radius: 6px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .75rem .45rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--rule); }
th:first-child { text-align: left; font-weight: 500; white-space: normal; }
td:last-child, th:last-child { padding-right: 0; }
small { display: block; }
.strip { width: 9rem; text-align: left; }
.strip svg { display: block; width: 9rem; height: 1rem; }
.strip circle { fill: var(--c1); }
.bar { stroke: var(--c1); stroke-width: 2.5; opacity: .55; }
.grid { stroke: var(--rule); stroke-width: 1; fill: none; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1.25rem; }
figure, article { margin: 0; padding: 1rem; background: var(--card); border: 1px solid var(--rule);
  border-radius: 8px; }
article + article { margin-top: 1rem; }
figure svg { display: block; width: 100%; height: auto; }
figure svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
.legend { display: flex; flex-wrap: wrap; gap: 0 1rem; margin: 0 0 .5rem; padding: 0; list-style: none; }
.legend b { color: var(--ink); font-weight: 500; }
.legend i { display: inline-block; width: 1.1rem; margin-right: .4rem; vertical-align: middle; border-top: 2px solid; }
li.c1 i { border-color: var(--c1); }
li.c2 i { border-color: var(--c2); border-top-style: dashed; }
li.c3 i { border-color: var(--c3); border-top-style: dotted; }
polyline { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.c1 polyline { stroke: var(--c1); }
.c2 polyline { stroke: var(--c2); stroke-dasharray: 6 3; }
.c3 polyline { stroke: var(--c3); stroke-dasharray: 2 3; }
.c1 circle { fill: var(--c1); }
.c2 circle { fill: var(--c2); }
.c3 circle { fill: var(--c3); }
.badge { padding: .1rem .5rem; border-radius: 1rem; border: 1px solid; font-size: .82rem; margin-right: .35rem; }
.good { color: var(--good); }
.bad { color: var(--bad); }
summary { cursor: pointer; color: var(--soft); }
@media (max-width: 34rem) { th.strip, td.strip { display: none; } }
"""
