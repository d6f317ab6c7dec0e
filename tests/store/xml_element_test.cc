#include "store/xml_element.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace valuescope::store {
namespace {

std::string Repeated(absl::string_view text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) absl::StrAppend(&all, text);
  return all;
}

TEST(XmlElementTest, ReadsElementsAndTheirTextWithoutNamespaces) {
  const auto root = ParseXml(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<a:List xmlns:a='http://s3/'><Key>x &amp; &#x3c;y</Key><Key>z</Key><a:Size "
      "n='1'/></a:List>");
  ASSERT_TRUE(root.ok()) << root.status();
  EXPECT_EQ(root->name, "List");
  ASSERT_EQ(root->children.size(), 3u);
  EXPECT_EQ(root->TextOf("Key"), "x & <y");
  EXPECT_EQ(root->children[1].text, "z");
  EXPECT_EQ(root->children[2].name, "Size");
  EXPECT_EQ(root->TextOf("Nothing"), "");
}

TEST(XmlElementTest, WhatIsNotWellFormedOrHasADocumentTypeIsRefused) {
  for (const std::string& text : {
           std::string(),
           std::string("no xml"),
           std::string("<a>"),
           std::string("<a></b>"),
           std::string("<a/><b/>"),
           std::string("<a>&unknown;</a>"),
           std::string("<a>\xff</a>"),
           std::string("<a>\0</a>", 8),
           std::string("<!DOCTYPE a><a/>"),
           std::string("<!DOCTYPE a [<!ENTITY e 'eeee'>]><a>&e;</a>"),
           std::string("<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><a>&e;</a>"),
           std::string("<!DOCTYPE a SYSTEM 'http://127.0.0.1/a.dtd'><a/>"),
       }) {
    EXPECT_EQ(ParseXml(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(XmlElementTest, DepthAndWidthAreBounded) {
  EXPECT_TRUE(ParseXml(Repeated("<a>", kMaxXmlDepth) + Repeated("</a>", kMaxXmlDepth)).ok());
  EXPECT_FALSE(
      ParseXml(Repeated("<a>", kMaxXmlDepth + 1) + Repeated("</a>", kMaxXmlDepth + 1)).ok());
  EXPECT_FALSE(ParseXml(Repeated("<a>", 1'000'000)).ok());
  EXPECT_TRUE(ParseXml("<r>" + Repeated("<a/>", kMaxXmlElements - 1) + "</r>").ok());
  EXPECT_FALSE(ParseXml("<r>" + Repeated("<a/>", kMaxXmlElements) + "</r>").ok());
}

}  // namespace
}  // namespace valuescope::store
