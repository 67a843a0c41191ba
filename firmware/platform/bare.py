# SPDX-License-Identifier: Apache-2.0
"""For the environments with PlatformIO's public platforms: the project brings its own start-up code and kernels."""

Import("env")  # type: ignore[name-defined]  # noqa: F821

env.Append(  # type: ignore[name-defined]  # noqa: F821
    CCFLAGS=["-mfloat-abi=soft"],
    LINKFLAGS=["-mfloat-abi=soft", "-nostartfiles", "--specs=nano.specs"],
)
