# SPDX-License-Identifier: Apache-2.0
"""A night of runs: packages x images x parameters of one authored file, each run in a process of its own.

model (the file) -> matrix (its runs) -> night (carries them out, in workers, and always knows on disk how far it is)
-> junit and harness.report.index (what people and CI systems look at).
"""
