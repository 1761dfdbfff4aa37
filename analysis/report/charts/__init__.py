"""All that is drawn with matplotlib: nothing else imports it.

| module | holds |
|---|---|
| `comprehensive` | the six charts of an evaluation, in one picture or one by one |
| `cost_panels`, `error_panels`, `style` | each of them; what they share |
| `difference_charts` | how far depth and points are off, pixel by pixel |
| `pareto_chart`, `time_chart` | size against damage; damage against time |
| `audit_charts`, `transfer_chart` | scores against true damage, and who pays; calibrations moved |
| `inspection_charts` | one layer |
| `drawing` | the network with bits as colours |
| `overview_chart` | points and cameras of a reconstruction |
| `colours` | numbers as colours |
| `fonts` | letters of the reader's language |
"""
