"""timm's networks that the tests attach attention to: at least one of every family that passes maps on."""


def names(text: str) -> tuple[str, ...]:
    """The words of `text`."""
    return tuple(text.split())


QUICK = names(
    "test_byobnet test_convnext cpubone_nano cs3darknet_focus_s cspnext_tiny densenet121 dla46x_c edgenext_xx_small "
    "test_efficientnet efficientvit_b0 efficientvit_m0 fasternet_t0 ghostnet_050 lcnetv2_small test_mambaout "
    "mobilenetv3_small_050 mobilevit_xxs test_nfnet regnetx_002 repghostnet_050 repvit_m1 resnest14d test_resnet "
    "resnetv2_18 starnet_s050 ese_vovnet19b_slim_dw"
)
"""A few seconds each."""

REST = names(
    # the smallest of each further family
    "convmixer_768_32 csatv2 efficientformer_l1 efficientformerv2_s0 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny "
    "halonet_h1 hardcorenas_b hgnetv2_b0 hrnet_w18_small iformer_t inception_next_atto inception_resnet_v2 "
    "inception_v3 inception_v4 legacy_seresnet18 legacy_xception lowformer_b0 mobilenetv5_base nextvit_small "
    "poolformerv2_s12 rdnet_tiny res2next50 rexnet_100 sam2_hiera_tiny samvit_base_patch16_224 selecsls42 "
    "sequencer2d_s shvit_s1 skresnet18 swiftformer_xs swin_tiny_patch4_window7_224 swinv2_cr_tiny_224 "
    "swinv2_tiny_window8_256 test_coatnet tresnet_m vgg11_bn visformer_tiny volo_d1_224 xception41p "
    # relatives with other blocks
    "resnet10t resnet26t resnet18d seresnet18 ecaresnet26t regnetx_004 regnety_002 regnetz_005 nf_resnet26 "
    "nf_regnet_b0 resnext50_32x4d convnext_atto convnextv2_atto convnext_zepto_rms efficientnet_b0 efficientnet_es "
    "tf_efficientnetv2_b0 mobilenetv2_035 mnasnet_small lcnet_035 tinynet_e fbnetc_100 spnasnet_100 mixnet_s "
    "mobilenetv4_conv_small_035 mobilenetv1_100 darknet17 cspresnet50 mobileone_s0 repvgg_a0 gernet_s hgnet_tiny "
    "dla34 dla60_res2net res2net50_14w_8s repvit_m0_9 caformer_s18 convformer_s18 mambaout_femto ese_vovnet39b "
    "xception41 legacy_seresnext26_32x4d densenetblur121d ghostnetv2_100 ghostnetv3_050 test_efficientnet_gn "
    "mobilevitv2_050 efficientvit_b1 focalnet_tiny_lrf hgnetv2_b1 halonet26t lambda_resnet26t botnet26t_256 "
    "maxvit_tiny_rw_224 coatnet_nano_rw_224 "
)
"""The long tier has these too."""

TOKENS = "return tokens N L C"
NO_SUM = "does not end in the sum of a shortcut and one branch"
REFUSED = {
    **dict.fromkeys(
        names(
            "cait_xxs24_224 coat_tiny convit_tiny crossvit_tiny_240 davit_tiny deit_tiny_patch16_224 "
            "vit_tiny_patch16_dinov3_qkvb hiera_tiny_224 levit_128s gmlp_ti16_224 mvitv2_tiny "
            "naflexvit_base_patch16_parfac_gap pit_ti_224 pvt_v2_b0 tnt_s_legacy_patch16_224 twins_svt_small test_vit "
            "vit_tiny_r_s16_p8_224 test_vit_relpos vitamin_small_224 xcit_nano_12_p8_224 efficientvim_m1"
        ),
        TOKENS,
    ),
    # their cells add several maps and put the sums one behind the other
    "nasnetalarge": NO_SUM,
    "pnasnet5large": NO_SUM,
    "dpn48b": NO_SUM,
    # its blocks hand maps to a part that works on tokens and adds them back
    "tiny_vit_5m_224": NO_SUM,
    "nest_tiny": "no blocks that can be told apart",
    # gates near 1/4 in every stage, and nothing that scales the map up again: 2e-4 of the gradient would reach the stem
    "vgg11": "neither shortcuts nor norms",
}
"""One of each family that carries no attention, and why."""

LARGER_IMAGES = {
    **dict.fromkeys(names("inception_resnet_v2 inception_v3 inception_v4"), 128),
    **dict.fromkeys(
        names(
            "efficientformer_l1 efficientformerv2_s0 gcvit_xxtiny swin_tiny_patch4_window7_224 swinv2_cr_tiny_224 "
            "visformer_tiny volo_d1_224 maxvit_tiny_rw_224 coatnet_nano_rw_224 sequencer2d_s sam2_hiera_tiny"
        ),
        224,
    ),
    **dict.fromkeys(names("halonet_h1 halonet26t lambda_resnet26t botnet26t_256 swinv2_tiny_window8_256"), 256),
    "test_coatnet": 160,
}
"""Images of 64 × 64 are too small for these, or they take no other size."""


def image_size(name: str) -> int:
    """Height and width of an image that is small and fits."""
    return LARGER_IMAGES.get(name, 64)
