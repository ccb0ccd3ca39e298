/* Finds and makes elements, and writes numbers. */

export const find = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export const percent = (share, digits = 1) => `${(share * 100).toFixed(digits)} %`;
