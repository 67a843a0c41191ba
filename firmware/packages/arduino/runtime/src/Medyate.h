/* SPDX-License-Identifier: Apache-2.0 */
/** What a sketch includes before its model's header. */
#ifndef MEDYATE_H
#define MEDYATE_H

#include "flash_emu.h"
#include "mdy/mdy.h"
#include "mdy/serve.h"

/**
 * Flash that is RAM: for trying a sketch. What is learned is lost with the power; a mdy_flash_t of the chip's own flash
 * (mdy/flash.h) takes its place. So much RAM as the banks take is needed for it.
 */
template <uint32_t Bytes, uint32_t UnitBytes, uint32_t Sectors> class MedyateRamFlash
{
  public:
    explicit MedyateRamFlash(const mdy_flash_geometry_t *geometry)
        : emulator_(),
          flash_{geometry,         &emulator_, mdy_flash_emu_read, mdy_flash_emu_erase, mdy_flash_emu_program,
                 mdy_flash_emu_map}
    {
        emulator_.geometry = geometry;
        emulator_.image = image_;
        mdy_flash_emu_format(&emulator_);
    }

    const mdy_flash_t *flash() const
    {
        return &flash_;
    }

  private:
    alignas(32) uint8_t image_[MDY_FLASH_EMU_IMAGE_BYTES(Bytes, UnitBytes, Sectors)];
    mdy_flash_emu_t emulator_;
    mdy_flash_t flash_;
};

#endif
