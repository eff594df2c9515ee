"""Test that an attack or a defense honours the contract of its kind."""

from benchmark.contract.check import CheckResult as CheckResult
from benchmark.contract.check import check_method as check_method
from benchmark.contract.check import toy_set as toy_set
