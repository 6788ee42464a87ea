/* <immintrin.h> has functions and macros of these names that this CPU cannot run: they are those of wide.h. */
#undef _mm512_abs_ps
#define _mm512_abs_ps wide_abs_ps
#undef _mm512_add_epi16
#define _mm512_add_epi16 wide_add_epi16
#undef _mm512_add_epi32
#define _mm512_add_epi32 wide_add_epi32
#undef _mm512_add_epi64
#define _mm512_add_epi64 wide_add_epi64
#undef _mm512_add_epi8
#define _mm512_add_epi8 wide_add_epi8
#undef _mm512_add_ps
#define _mm512_add_ps wide_add_ps
#undef _mm512_adds_epi16
#define _mm512_adds_epi16 wide_adds_epi16
#undef _mm512_and_si512
#define _mm512_and_si512 wide_and_si512
#undef _mm512_castps_si512
#define _mm512_castps_si512 wide_castps_si512
#undef _mm512_castsi512_ps
#define _mm512_castsi512_ps wide_castsi512_ps
#undef _mm512_cmp_ps_mask
#define _mm512_cmp_ps_mask wide_cmp_ps_mask
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps wide_cvtepi32_ps
#undef _mm512_cvtps_epi32
#define _mm512_cvtps_epi32 wide_cvtps_epi32
#undef _mm512_div_ps
#define _mm512_div_ps wide_div_ps
#undef _mm512_fmadd_ps
#define _mm512_fmadd_ps wide_fmadd_ps
#undef _mm512_fmsub_ps
#define _mm512_fmsub_ps wide_fmsub_ps
#undef _mm512_fnmadd_ps
#define _mm512_fnmadd_ps wide_fnmadd_ps
#undef _mm512_i32scatter_epi32
#define _mm512_i32scatter_epi32 wide_i32scatter_epi32
#undef _mm512_load_si512
#define _mm512_load_si512 wide_load_si512
#undef _mm512_loadu_ps
#define _mm512_loadu_ps wide_loadu_ps
#undef _mm512_loadu_si512
#define _mm512_loadu_si512 wide_loadu_si512
#undef _mm512_madd_epi16
#define _mm512_madd_epi16 wide_madd_epi16
#undef _mm512_mask_blend_ps
#define _mm512_mask_blend_ps wide_mask_blend_ps
#undef _mm512_mask_loadu_epi8
#define _mm512_mask_loadu_epi8 wide_mask_loadu_epi8
#undef _mm512_mask_max_epi32
#define _mm512_mask_max_epi32 wide_mask_max_epi32
#undef _mm512_mask_mov_ps
#define _mm512_mask_mov_ps wide_mask_mov_ps
#undef _mm512_mask_storeu_epi8
#define _mm512_mask_storeu_epi8 wide_mask_storeu_epi8
#undef _mm512_mask_storeu_ps
#define _mm512_mask_storeu_ps wide_mask_storeu_ps
#undef _mm512_maskz_div_ps
#define _mm512_maskz_div_ps wide_maskz_div_ps
#undef _mm512_maskz_loadu_epi32
#define _mm512_maskz_loadu_epi32 wide_maskz_loadu_epi32
#undef _mm512_maskz_loadu_epi8
#define _mm512_maskz_loadu_epi8 wide_maskz_loadu_epi8
#undef _mm512_maskz_loadu_ps
#define _mm512_maskz_loadu_ps wide_maskz_loadu_ps
#undef _mm512_maskz_mov_epi32
#define _mm512_maskz_mov_epi32 wide_maskz_mov_epi32
#undef _mm512_maskz_sub_epi8
#define _mm512_maskz_sub_epi8 wide_maskz_sub_epi8
#undef _mm512_max_epi32
#define _mm512_max_epi32 wide_max_epi32
#undef _mm512_max_epu8
#define _mm512_max_epu8 wide_max_epu8
#undef _mm512_max_ps
#define _mm512_max_ps wide_max_ps
#undef _mm512_min_epi32
#define _mm512_min_epi32 wide_min_epi32
#undef _mm512_min_ps
#define _mm512_min_ps wide_min_ps
#undef _mm512_mul_ps
#define _mm512_mul_ps wide_mul_ps
#undef _mm512_mullo_epi32
#define _mm512_mullo_epi32 wide_mullo_epi32
#undef _mm512_or_si512
#define _mm512_or_si512 wide_or_si512
#undef _mm512_packs_epi32
#define _mm512_packs_epi32 wide_packs_epi32
#undef _mm512_packus_epi16
#define _mm512_packus_epi16 wide_packus_epi16
#undef _mm512_permutex2var_epi32
#define _mm512_permutex2var_epi32 wide_permutex2var_epi32
#undef _mm512_permutexvar_epi32
#define _mm512_permutexvar_epi32 wide_permutexvar_epi32
#undef _mm512_reduce_add_epi32
#define _mm512_reduce_add_epi32 wide_reduce_add_epi32
#undef _mm512_reduce_add_epi64
#define _mm512_reduce_add_epi64 wide_reduce_add_epi64
#undef _mm512_reduce_add_ps
#define _mm512_reduce_add_ps wide_reduce_add_ps
#undef _mm512_reduce_max_epi32
#define _mm512_reduce_max_epi32 wide_reduce_max_epi32
#undef _mm512_reduce_max_ps
#define _mm512_reduce_max_ps wide_reduce_max_ps
#undef _mm512_reduce_min_ps
#define _mm512_reduce_min_ps wide_reduce_min_ps
#undef _mm512_sad_epu8
#define _mm512_sad_epu8 wide_sad_epu8
#undef _mm512_scalef_ps
#define _mm512_scalef_ps wide_scalef_ps
#undef _mm512_set1_epi16
#define _mm512_set1_epi16 wide_set1_epi16
#undef _mm512_set1_epi32
#define _mm512_set1_epi32 wide_set1_epi32
#undef _mm512_set1_epi64
#define _mm512_set1_epi64 wide_set1_epi64
#undef _mm512_set1_epi8
#define _mm512_set1_epi8 wide_set1_epi8
#undef _mm512_set1_ps
#define _mm512_set1_ps wide_set1_ps
#undef _mm512_setr_epi32
#define _mm512_setr_epi32 wide_setr_epi32
#undef _mm512_setzero_ps
#define _mm512_setzero_ps wide_setzero_ps
#undef _mm512_setzero_si512
#define _mm512_setzero_si512 wide_setzero_si512
#undef _mm512_shuffle_epi8
#define _mm512_shuffle_epi8 wide_shuffle_epi8
#undef _mm512_slli_epi32
#define _mm512_slli_epi32 wide_slli_epi32
#undef _mm512_srli_epi32
#define _mm512_srli_epi32 wide_srli_epi32
#undef _mm512_srli_epi64
#define _mm512_srli_epi64 wide_srli_epi64
#undef _mm512_srlv_epi32
#define _mm512_srlv_epi32 wide_srlv_epi32
#undef _mm512_store_si512
#define _mm512_store_si512 wide_store_si512
#undef _mm512_storeu_ps
#define _mm512_storeu_ps wide_storeu_ps
#undef _mm512_storeu_si512
#define _mm512_storeu_si512 wide_storeu_si512
#undef _mm512_sub_epi16
#define _mm512_sub_epi16 wide_sub_epi16
#undef _mm512_sub_epi32
#define _mm512_sub_epi32 wide_sub_epi32
#undef _mm512_sub_epi8
#define _mm512_sub_epi8 wide_sub_epi8
#undef _mm512_sub_ps
#define _mm512_sub_ps wide_sub_ps
#undef _mm512_unpackhi_epi16
#define _mm512_unpackhi_epi16 wide_unpackhi_epi16
#undef _mm512_unpackhi_epi8
#define _mm512_unpackhi_epi8 wide_unpackhi_epi8
#undef _mm512_unpacklo_epi16
#define _mm512_unpacklo_epi16 wide_unpacklo_epi16
#undef _mm512_unpacklo_epi8
#define _mm512_unpacklo_epi8 wide_unpacklo_epi8
