"""The contract tests: does an attack or a defense keep the promises of its kind?"""

from benchmark.contract.check import CheckResult as CheckResult
from benchmark.contract.check import check_method as check_method
from benchmark.contract.check import toy_set as toy_set
