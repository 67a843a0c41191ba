# SPDX-License-Identifier: Apache-2.0
"""stub"""
from __future__ import annotations
import numpy as np, math
from medyate.quantize.scheme import QMAX, QMIN, Integers, fixed_point
def affine_multipliers(facts, *, in_binary32):
    x, y = facts.inputs[0].scale, facts.output.scale
    scales = facts.arrays["scale"]
    if in_binary32:
        return (np.float32(x) * scales.astype(np.float32)).astype(np.float64) / y
    return x * scales / y
def same_pairs(facts, multipliers):
    return [fixed_point(v) for v in facts.multipliers] == [fixed_point(float(v)) for v in multipliers]
def bounds_in_binary32(activation, quant):
    if activation is None: return QMIN, QMAX
    def q(v):
        r = float(np.float32(v) / np.float32(quant.scale))
        return quant.zero + int(math.copysign(math.floor(abs(r) + 0.5), r))
    lo, hi = activation
    return (QMIN if math.isinf(lo) else max(QMIN, q(lo))), (QMAX if math.isinf(hi) else min(QMAX, q(hi)))
def check_product(facts): return ""
def check_table(a, facts): return ""
def mean_agrees(facts, n): return True
